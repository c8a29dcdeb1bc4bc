"""The tables of the store, and how an older file is brought up to date.

A migration is a tuple of statements; the file's `user_version` counts those it has had. Add new ones at the end and
never change one that was released.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

from peft_core.runs.errors import StoreUnusable

log = logging.getLogger(__name__)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE comparisons (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            created TEXT NOT NULL,
            spec TEXT NOT NULL,
            owner TEXT NOT NULL,
            claimed INTEGER NOT NULL DEFAULT 0,
            plan TEXT NOT NULL DEFAULT '{}',
            environment TEXT NOT NULL DEFAULT '{}',
            baseline_score REAL,
            metric TEXT,
            message TEXT)""",
        """CREATE TABLE runs (
            run TEXT PRIMARY KEY,
            comparison TEXT NOT NULL REFERENCES comparisons(id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            label TEXT NOT NULL,
            method TEXT NOT NULL,
            seed INTEGER NOT NULL,
            state TEXT NOT NULL,
            config TEXT NOT NULL DEFAULT '{}',
            error TEXT,
            step INTEGER NOT NULL DEFAULT 0,
            total_steps INTEGER,
            result TEXT)""",
        "CREATE INDEX runs_of_comparison ON runs(comparison, number)",
        "CREATE INDEX runs_by_state ON runs(state)",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            comparison TEXT NOT NULL,
            run TEXT NOT NULL REFERENCES runs(run) ON DELETE CASCADE,
            kind TEXT NOT NULL,
            step INTEGER NOT NULL,
            body TEXT NOT NULL)""",
        "CREATE INDEX events_of_comparison ON events(comparison, seq)",
        "CREATE UNIQUE INDEX events_once ON events(run, kind, step) WHERE kind <> 'state'",
    ),
    (
        "ALTER TABLE comparisons ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE comparisons ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE comparisons ADD COLUMN model TEXT AS (json_extract(spec, '$.model')) VIRTUAL",
        "ALTER TABLE comparisons ADD COLUMN task TEXT AS (json_extract(spec, '$.task')) VIRTUAL",
        "ALTER TABLE runs ADD COLUMN note TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE runs ADD COLUMN score REAL",
        "ALTER TABLE runs ADD COLUMN method_id TEXT AS (json_extract(method, '$.id')) VIRTUAL",
        """UPDATE runs SET score = json_extract(result, '$.score."' || (
            SELECT metric FROM comparisons WHERE id = comparison) || '"') WHERE result IS NOT NULL""",
        """CREATE INDEX comparisons_listed
            ON comparisons(hidden, number, id, created, model, task, metric, note)""",
        """CREATE INDEX runs_listed
            ON runs(comparison, number, run, label, method_id, seed, state, score, note)""",
    ),
    (
        """CREATE TABLE visits (
            comparison TEXT PRIMARY KEY REFERENCES comparisons(id) ON DELETE CASCADE,
            visitor TEXT NOT NULL,
            address TEXT NOT NULL,
            private INTEGER NOT NULL)""",
        "CREATE INDEX visits_listed ON visits(comparison, visitor, private)",
    ),
)


def open_connection(path: Path, *, timeout: float) -> sqlite3.Connection:
    """A connection in autocommit mode (transactions are begun by hand), with foreign keys on."""
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema; keep a copy of an older one; refuse a newer one untouched."""
    version = _version(connection, path)
    if 0 < version < len(MIGRATIONS):
        _back_up(connection, path.with_name(f"{path.name}.v{version}.backup"))
    use_write_ahead_log(connection)
    if version < len(MIGRATIONS):
        _migrate(connection, path)


def use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Readers beside a writer where the file system allows it; else the rollback journal with full syncs."""
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except sqlite3.OperationalError as error:
        log.info("no write-ahead log for the store: %s", error)
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreUnusable(
            f"The file {path} is not a store of RankLab ({error}); move it away to start anew."
        ) from None
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"The store {path} has schema {version} and this version of RankLab knows up to {len(MIGRATIONS)}; "
            "update RankLab to open it."
        )
    return version


def _back_up(connection: sqlite3.Connection, to: Path) -> None:
    log.info("copying the store to %s before its schema changes", to)
    copy = sqlite3.connect(to)
    try:
        connection.backup(copy)
    finally:
        copy.close()


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    started = time.monotonic()
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)  # again: another process may have been faster
        for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    log.info("store schema %d to %d in %.2f s", version, len(MIGRATIONS), time.monotonic() - started)
