"""Reading the store: each call on a connection of its own, so that no reader waits for another one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from peft_core.records import ComparisonRow, RunRow, RunState, View
from peft_core.runs import folders, rows, schema
from peft_core.runs.rows import UNFINISHED


class Reader:
    """What can be asked of the store's file at `path`. All methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def comparisons(self) -> list[ComparisonRow]:
        """All comparisons, the newest first."""
        with self._reading() as connection:
            figures: dict[str, list[tuple[RunState, int, int | None]]] = {}
            for row in connection.execute("SELECT comparison, state, step, total_steps FROM runs ORDER BY number"):
                figures.setdefault(row["comparison"], []).append(
                    (RunState(row["state"]), row["step"], row["total_steps"])
                )
            found = connection.execute("SELECT * FROM comparisons ORDER BY number DESC").fetchall()
        return [rows.comparison_row(row, figures.get(row["id"], [])) for row in found]

    def view(self, comparison_id: str, after: int = 0, *, only: Collection[str] | None = None) -> View:
        """A comparison, its runs (or those in `only`) and its events after `after`, all of one moment."""
        with self._reading() as connection:
            row = connection.execute("SELECT * FROM comparisons WHERE id = ?", (comparison_id,)).fetchone()
            if row is None:
                raise folders.unknown(comparison_id)
            figures = [
                (RunState(found["state"]), found["step"], found["total_steps"])
                for found in connection.execute(
                    "SELECT state, step, total_steps FROM runs WHERE comparison = ? ORDER BY number", (comparison_id,)
                )
            ]
            runs = self._runs(connection, comparison_id, only)
            events = connection.execute(
                "SELECT seq, body FROM events WHERE comparison = ? AND seq > ? ORDER BY seq", (comparison_id, after)
            ).fetchall()
        return View.model_construct(
            seq=events[-1]["seq"] if events else after,
            comparison=rows.comparison_row(row, figures),
            runs=runs,
            events=[{**json.loads(event["body"]), "seq": event["seq"]} for event in events],
        )

    def runs(self, comparison_id: str) -> tuple[RunRow, ...]:
        """The runs of a comparison in their order."""
        with self._reading() as connection:
            return self._runs(connection, comparison_id, None)

    def find(self, given: str) -> tuple[str, tuple[str, ...]]:
        """The comparison that an id of a comparison or of a run names, and which of its runs are meant."""
        comparison_id, is_run = folders.comparison_of(given)
        with self._reading() as connection:
            known = [
                row["run"]
                for row in connection.execute(
                    "SELECT run FROM runs WHERE comparison = ? ORDER BY number", (comparison_id,)
                )
            ]
        if not known or (is_run and given not in known):
            raise folders.unknown(given)
        return comparison_id, (given,) if is_run else tuple(known)

    def owner(self, comparison_id: str) -> str:
        """Who works on the comparison, or did last."""
        with self._reading() as connection:
            row = connection.execute("SELECT owner FROM comparisons WHERE id = ?", (comparison_id,)).fetchone()
        if row is None:
            raise folders.unknown(comparison_id)
        return str(row["owner"])

    def unfinished_owners(self) -> set[str]:
        """The owners of all comparisons that have not ended."""
        query = f"""SELECT DISTINCT owner FROM comparisons JOIN runs ON comparison = id
            WHERE state IN ({marks(UNFINISHED)})"""
        with self._reading() as connection:
            return {row["owner"] for row in connection.execute(query, list(UNFINISHED))}

    @staticmethod
    def _runs(connection: sqlite3.Connection, comparison_id: str, only: Collection[str] | None) -> tuple[RunRow, ...]:
        query, values = "SELECT * FROM runs WHERE comparison = ?", [comparison_id]
        if only is not None:
            query, values = f"{query} AND run IN ({marks(only)})", [comparison_id, *only]
        return tuple(rows.run_row(row) for row in connection.execute(query + " ORDER BY number", values))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(schema.open_connection(self._path, timeout=5.0)) as connection:
            connection.execute("BEGIN")
            yield connection


def marks(values: Collection[Any]) -> str:
    """Placeholders for values in a statement."""
    return ", ".join("?" * len(values))
