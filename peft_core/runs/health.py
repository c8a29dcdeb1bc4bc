"""Whether a supervisor can do its work, and what it counts: for those who watch a server from outside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft_core.records import RunState
from peft_core.runs import folders

StoreCondition = Literal["ok", "busy", "gone"]
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


@dataclass(frozen=True)
class Health:
    """store: ok, busy while another process holds it locked, gone where it cannot be written. room: enough is free on
    the disk to start a comparison."""

    store: StoreCondition
    scheduler: bool
    executor: bool
    room: bool

    @property
    def able(self) -> bool:
        """Whether comparisons can be taken and trained. A locked store or a full disk passes."""
        return self.store != "gone" and self.scheduler and self.executor


@dataclass(frozen=True)
class Figures:
    """runs: how many are in each state, those of hidden comparisons included. waiting, at_work: comparisons."""

    runs: dict[RunState, int]
    waiting: int
    at_work: int
    workers: tuple[int, ...]


def has_room(folder: Path, least: int) -> bool:
    """Whether so many bytes are free on the disk of a folder; not where the folder is gone."""
    try:
        return folders.free_bytes(folder) >= least
    except OSError:
        return False


def condition(store: Path) -> StoreCondition:
    """Whether the store's file can be written now. Writes nothing, and makes no file where there is none."""
    try:
        address = f"{store.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=0.2, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone()
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return "busy" if error.sqlite_errorcode & 0xFF in BUSY else "gone"
    except sqlite3.DatabaseError:
        return "gone"
    return "ok" if there else "gone"
