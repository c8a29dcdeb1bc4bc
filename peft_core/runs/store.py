"""The store: every comparison, run and event in one SQLite file. Only the store changes a run's state.

One connection writes, under a lock and in short transactions; every read has a connection of its own (`reader.py`).
All methods may be called from any thread. Writes wait for a store that another process holds locked, then raise
`StoreBusy`; a full disk raises `DiskFull`. Neither leaves half a change behind.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from peft_core.records import ComparisonSpec, RunState, StateRecord, run_specs
from peft_core.runs import folders, schema, visits
from peft_core.runs.errors import DiskFull, Refused, StoreBusy
from peft_core.runs.health import BUSY
from peft_core.runs.reader import Reader, marks
from peft_core.runs.rows import LIVE, NEXT, RESUMABLE, UNFINISHED
from peft_core.runs.visits import Visit

R = TypeVar("R")
FACTS = ("plan", "environment", "baseline_score", "metric", "message")
_SCORE = """UPDATE runs SET score = json_extract(result, '$.score."' || (
    SELECT metric FROM comparisons WHERE id = comparison) || '"') WHERE run = ?"""
_VISIBLE = "WHERE id = ? AND hidden = 0"


class Store(Reader):
    """The file at `path`, made or migrated when opened. patience: seconds a write waits for another process."""

    def __init__(self, path: Path, *, patience: float = 40.0) -> None:
        super().__init__(path)
        self._patience = patience
        self._lock = threading.RLock()
        self._writer = schema.open_connection(path, timeout=patience)
        try:
            schema.prepare(self._writer, path)
        except BaseException:
            self._writer.close()
            raise
        self._writer.execute("PRAGMA busy_timeout = 250")
        self._seen_version = self._data_version()

    def close(self) -> None:
        with self._lock:
            self._writer.close()

    def changed_elsewhere(self) -> bool:
        """Whether another process has written since the last call. False while the store is locked."""
        try:
            with self._lock:
                version = self._data_version()
                changed, self._seen_version = version != self._seen_version, version
        except sqlite3.OperationalError:
            return False
        return changed

    # --- writing ------------------------------------------------------------------------------------------------

    def add(self, spec: ComparisonSpec, owner: str, visit: Visit | None = None) -> str:
        """Store a comparison with all of its runs queued; return its new id. visit: who asked for it."""

        def change(connection: sqlite3.Connection) -> str:
            comparison_id = folders.new_id()
            while connection.execute("SELECT 1 FROM comparisons WHERE id = ?", (comparison_id,)).fetchone():
                comparison_id = folders.new_id()
            connection.execute(
                "INSERT INTO comparisons (id, created, spec, owner) VALUES (?, ?, ?, ?)",
                (comparison_id, datetime.now(UTC).isoformat(timespec="seconds"), spec.model_dump_json(), owner),
            )
            for number, run in enumerate(run_specs(comparison_id, spec)):
                connection.execute(
                    "INSERT INTO runs (run, comparison, number, label, method, seed, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, 'queued')",
                    (run.run, comparison_id, number, run.label, run.method.model_dump_json(), run.seed),
                )
            if visit is not None:
                visits.keep(connection, comparison_id, visit)
            return comparison_id

        return self._write(change)

    def claim(self, comparison_id: str, owner: str) -> bool:
        """Begin work on a comparison: true once, and only while it has queued runs and this owner."""
        query = (
            "UPDATE comparisons SET claimed = 1 WHERE id = ? AND owner = ? AND claimed = 0 "
            "AND EXISTS (SELECT 1 FROM runs WHERE comparison = comparisons.id AND state = 'queued')"
        )
        return self._write(lambda connection: connection.execute(query, (comparison_id, owner)).rowcount == 1)

    def release(self, comparison_id: str) -> None:
        """Work on a comparison has ended."""
        query = "UPDATE comparisons SET claimed = 0 WHERE id = ?"
        self._write(lambda connection: connection.execute(query, (comparison_id,)))

    def apply(
        self, comparison_id: str, reports: Sequence[Mapping[str, Any]], patience: float | None = None
    ) -> set[str]:
        """Take in what a worker reports, in order and in one transaction; return the runs that changed.

        A report holds an `event` (a record as JSON) or a `notice` (facts on the comparison or on one run). An event
        that is stored already (the same run, kind and step) is left out, and so is one of a run that is not live.
        """

        def change(connection: sqlite3.Connection) -> set[str]:
            changed: set[str] = set()
            for report in reports:
                if "event" in report:
                    changed |= self._take_event(connection, comparison_id, report["event"])
                else:
                    changed |= _take_notice(connection, comparison_id, report["notice"])
            return changed

        return self._write(change, patience)

    def request_stop(self, runs: Collection[str]) -> dict[str, RunState]:
        """Ask runs to stop: `stopping` where they run, `cancelled` where they wait, else as they were."""

        def change(connection: sqlite3.Connection) -> dict[str, RunState]:
            moved = {}
            for run in runs:
                state, _ = _state(connection, run)
                to = RunState.CANCELLED if state is RunState.QUEUED else RunState.STOPPING
                if self._move(connection, StateRecord(run=run, step=0, state=to)):
                    moved[run] = to
            return moved

        return self._write(change)

    def requeue(self, comparison_id: str, runs: Collection[str], owner: str) -> list[str]:
        """Queue those of `runs` again that can be resumed, under a new owner; return them."""

        def change(connection: sqlite3.Connection) -> list[str]:
            if not connection.execute(f"SELECT 1 FROM comparisons {_VISIBLE}", (comparison_id,)).fetchone():
                raise folders.unknown(comparison_id)
            moved = [
                run
                for run in runs
                if _state(connection, run)[0] in RESUMABLE
                and self._move(connection, StateRecord(run=run, step=0, state=RunState.QUEUED))
            ]
            if moved:
                connection.execute(
                    "UPDATE comparisons SET owner = ?, message = NULL WHERE id = ?", (owner, comparison_id)
                )
            return moved

        return self._write(change)

    def interrupt(self, owners: Collection[str], patience: float | None = None) -> set[str]:
        """Mark all that these owners left unfinished as interrupted; return the comparisons."""
        query = f"""SELECT id, run FROM comparisons JOIN runs ON comparison = id
            WHERE owner IN ({marks(owners)}) AND state IN ({marks(UNFINISHED)})"""

        def change(connection: sqlite3.Connection) -> set[str]:
            found = connection.execute(query, [*owners, *UNFINISHED]).fetchall()
            for row in found:
                self._move(connection, StateRecord(run=row["run"], step=0, state=RunState.INTERRUPTED))
                connection.execute("UPDATE comparisons SET claimed = 0 WHERE id = ?", (row["id"],))
            return {row["id"] for row in found}

        return self._write(change, patience)

    def delete(self, comparison_id: str) -> None:
        """Remove a comparison with its runs and events; refused while any of them has not ended."""

        def change(connection: sqlite3.Connection) -> None:
            _refuse_at_work(connection, comparison_id)
            connection.execute("DELETE FROM comparisons WHERE id = ?", (comparison_id,))

        self._write(change)

    def hide(self, comparison_id: str) -> None:
        """Take a comparison out of everything that is shown; refused while any of its runs has not ended."""

        def change(connection: sqlite3.Connection) -> None:
            _refuse_at_work(connection, comparison_id)
            moved = connection.execute(
                "UPDATE comparisons SET hidden = 1 WHERE id = ? AND hidden = 0", (comparison_id,)
            )
            if not moved.rowcount:
                raise folders.unknown(comparison_id)

        self._write(change)

    def show(self, comparison_id: str) -> bool:
        """Bring a hidden comparison back; false where it is gone, or was not hidden."""
        query = "UPDATE comparisons SET hidden = 0 WHERE id = ? AND hidden = 1"
        return self._write(lambda connection: connection.execute(query, (comparison_id,)).rowcount == 1)

    def remove_hidden(self, comparison_id: str) -> bool:
        """Remove a hidden comparison for good; false where it is gone, or was brought back."""
        query = "DELETE FROM comparisons WHERE id = ? AND hidden = 1"
        return self._write(lambda connection: connection.execute(query, (comparison_id,)).rowcount == 1)

    def write_note(self, given: str, text: str) -> None:
        """Keep a note on a comparison or on a run; an empty one takes it away."""
        comparison_id, is_run = folders.comparison_of(given)
        table, key = ("runs", "run") if is_run else ("comparisons", "id")
        query = f"UPDATE {table} SET note = ? WHERE {key} = ? AND EXISTS (SELECT 1 FROM comparisons {_VISIBLE})"

        def change(connection: sqlite3.Connection) -> None:
            if not connection.execute(query, (text, given, comparison_id)).rowcount:
                raise folders.unknown(given)

        self._write(change)

    # --- inside a transaction -----------------------------------------------------------------------------------

    def _take_event(self, connection: sqlite3.Connection, comparison_id: str, event: Mapping[str, Any]) -> set[str]:
        run, kind, step = str(event["run"]), str(event["event"]), int(event["step"])
        state, _ = _state(connection, run)
        if kind == "state":
            record = StateRecord.model_validate(event)
            if record.state is RunState.CANCELLED and state in (RunState.QUEUED, RunState.RUNNING):
                record = record.model_copy(update={"state": RunState.INTERRUPTED})  # it stopped, but no visitor asked
            return {run} if self._move(connection, record) else set()
        if state not in LIVE:
            return set()
        added = connection.execute(
            "INSERT OR IGNORE INTO events (comparison, run, kind, step, body) VALUES (?, ?, ?, ?, ?)",
            (comparison_id, run, kind, step, _json(event)),
        )
        connection.execute("UPDATE runs SET step = ? WHERE run = ? AND step < ?", (step, run, step))
        return {run} if added.rowcount else set()

    def _move(self, connection: sqlite3.Connection, record: StateRecord) -> bool:
        """Take a run to another state and keep the event of it; false where that state cannot follow."""
        state, step = _state(connection, record.run)
        if record.state not in NEXT[state]:
            return False
        record = record.model_copy(update={"step": max(step, record.step)})
        connection.execute(
            "UPDATE runs SET state = ?, error = ?, result = ? WHERE run = ?",
            (record.state, record.error, record.result.model_dump_json() if record.result else None, record.run),
        )
        connection.execute(_SCORE, (record.run,))
        connection.execute(
            "INSERT INTO events (comparison, run, kind, step, body) "
            "SELECT comparison, run, 'state', ?, ? FROM runs WHERE run = ?",
            (record.step, record.model_dump_json(), record.run),
        )
        return True

    # --- connections --------------------------------------------------------------------------------------------

    def _write(self, change: Callable[[sqlite3.Connection], R], patience: float | None = None) -> R:
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        while True:
            try:
                with self._lock, _transaction(self._writer):
                    return change(self._writer)
            except sqlite3.OperationalError as error:
                code = error.sqlite_errorcode & 0xFF
                if code == sqlite3.SQLITE_FULL:
                    raise DiskFull("The disk is full; free some space, then resume.") from error
                if code not in BUSY:
                    raise
                if time.monotonic() >= deadline:
                    raise StoreBusy("The store is locked by another process; try again in a moment.") from error
            time.sleep(0.05)

    def _data_version(self) -> int:
        return int(self._writer.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_at_work(connection: sqlite3.Connection, comparison_id: str) -> None:
    query = f"SELECT 1 FROM runs WHERE comparison = ? AND state IN ({marks(UNFINISHED)})"
    if connection.execute(query, [comparison_id, *UNFINISHED]).fetchone():
        raise Refused(f"The comparison {comparison_id} is still at work; stop it before deleting it.")


def _state(connection: sqlite3.Connection, run: str) -> tuple[RunState, int]:
    row = connection.execute("SELECT state, step FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        raise folders.unknown(run)
    return RunState(row["state"]), row["step"]


def _take_notice(connection: sqlite3.Connection, comparison_id: str, notice: Mapping[str, Any]) -> set[str]:
    """Facts: on a run (`run` with `config`, `total_steps`), else on the comparison."""
    if run := notice.get("run"):
        for key, value in (("config", _json(notice.get("config", {}))), ("total_steps", notice.get("total_steps"))):
            if key in notice:
                connection.execute(f"UPDATE runs SET {key} = ? WHERE run = ?", (value, run))
        return {str(run)}
    for key in FACTS:
        if key in notice:
            value = _json(notice[key]) if key in ("plan", "environment") else notice[key]
            connection.execute(f"UPDATE comparisons SET {key} = ? WHERE id = ?", (value, comparison_id))
    return set()


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
