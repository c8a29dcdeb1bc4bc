"""Reading the store: each call on a connection of its own, so that no reader waits for another one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from peft_core.records import ComparisonRow, RunRow, RunState, View
from peft_core.runs import folders, listing, rows, schema, visits
from peft_core.runs.listing import RunPage, RunQuery
from peft_core.runs.rows import UNFINISHED
from peft_core.runs.visits import Visit


class Reader:
    """What can be asked of the store's file at `path`. All methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def comparisons(self, newest: int | None = None, seen_by: str | None = None) -> list[ComparisonRow]:
        """All comparisons, the newest first. newest: only so many, and those that have not ended. seen_by: a visitor
        of a public page, and what that visitor may see."""
        wanted = "hidden = 0" if seen_by is None else f"hidden = 0 {visits.SEEN}"
        values: list[Any] = [] if seen_by is None else [seen_by]
        if newest is not None:
            newest_ones = f"SELECT id FROM comparisons WHERE {wanted} ORDER BY number DESC LIMIT ?"
            unfinished = f"SELECT comparison FROM runs WHERE state IN ({marks(UNFINISHED)})"
            wanted = f"{wanted} AND (id IN ({newest_ones}) OR id IN ({unfinished}))"
            values = [*values, *values, newest, *UNFINISHED]
        return self._comparisons(wanted, values)

    def hidden(self) -> list[ComparisonRow]:
        """The comparisons that were deleted and are not removed yet, the newest first."""
        return self._comparisons("hidden = 1", [])

    def _comparisons(self, wanted: str, values: Sequence[Any]) -> list[ComparisonRow]:
        with self._reading() as connection:
            figures: dict[str, list[tuple[RunState, int, int | None]]] = {}
            for row in connection.execute(
                f"""SELECT comparison, state, step, total_steps FROM runs
                    WHERE comparison IN (SELECT id FROM comparisons WHERE {wanted}) ORDER BY number""",
                values,
            ):
                figures.setdefault(row["comparison"], []).append(
                    (RunState(row["state"]), row["step"], row["total_steps"])
                )
            query = f"SELECT * FROM comparisons WHERE {wanted} ORDER BY number DESC"
            found = connection.execute(query, values).fetchall()
        return [rows.comparison_row(row, figures.get(row["id"], [])) for row in found]

    def list_runs(self, query: RunQuery, seen_by: str | None = None) -> RunPage:
        """One page of all runs that are shown, or that a visitor may see."""
        with self._reading() as connection:
            return listing.page(connection, query, seen_by)

    def states(self) -> dict[RunState, int]:
        """How many runs are in each state, from an index alone."""
        query = "SELECT state, count(*) FROM runs INDEXED BY runs_listed GROUP BY state"
        with self._reading() as connection:
            return {RunState(row[0]): int(row[1]) for row in connection.execute(query)}

    def choices(self, seen_by: str | None = None) -> dict[str, list[tuple[str, int]]]:
        """What runs can be filtered by: for each of `listing.FILTERS` its values with their counts."""
        with self._reading() as connection:
            return listing.choices(connection, seen_by)

    def visit_of(self, comparison_id: str) -> Visit | None:
        """Who asked for a comparison on a public page; None where nobody did."""
        with self._reading() as connection:
            return visits.visit_of(connection, comparison_id)

    def unfinished_visits(self) -> list[Visit]:
        """Who asked for the comparisons that have not ended, once for each."""
        with self._reading() as connection:
            return visits.unfinished(connection)

    def ended_visits_beyond(self, kept: int) -> list[str]:
        """The ids of visitors' comparisons that have ended, without the newest `kept`."""
        with self._reading() as connection:
            return visits.ended_beyond(connection, kept)

    def notes(self, run: str) -> tuple[str, str]:
        """The notes on a run and on its comparison."""
        query = "SELECT runs.note, comparisons.note FROM runs JOIN comparisons ON comparison = id WHERE run = ?"
        with self._reading() as connection:
            row = connection.execute(f"{query} AND hidden = 0", (run,)).fetchone()
        if row is None:
            raise folders.unknown(run)
        return str(row[0]), str(row[1])

    def view(self, comparison_id: str, after: int = 0, *, only: Collection[str] | None = None) -> View:
        """A comparison, its runs (or those in `only`) and its events after `after`, all of one moment."""
        with self._reading() as connection:
            query = "SELECT * FROM comparisons WHERE id = ? AND hidden = 0"
            row = connection.execute(query, (comparison_id,)).fetchone()
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
            events=_events(events),
        )

    def view_of_run(self, run: str, after: int = 0) -> View:
        """One run with its comparison's row and its own events after `after`, but for the changes of its state."""
        comparison_id, _ = self.find(run)
        with self._reading() as connection:
            runs = self._runs(connection, comparison_id, (run,))
            row = connection.execute("SELECT * FROM comparisons WHERE id = ?", (comparison_id,)).fetchone()
            events = connection.execute(
                "SELECT seq, body FROM events WHERE run = ? AND kind <> 'state' AND seq > ? ORDER BY seq", (run, after)
            ).fetchall()
        if row is None or not runs:
            raise folders.unknown(run)
        return View.model_construct(
            seq=events[-1]["seq"] if events else after,
            comparison=rows.comparison_row(row, [(found.state, found.step, found.total_steps) for found in runs]),
            runs=runs,
            events=_events(events),
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
                    "SELECT run FROM runs JOIN comparisons ON comparison = id AND hidden = 0 WHERE comparison = ? "
                    "ORDER BY runs.number",
                    (comparison_id,),
                )
            ]
        if not known or (is_run and given not in known):
            raise folders.unknown(given)
        return comparison_id, (given,) if is_run else tuple(known)

    def event_counts(self, comparison_id: str) -> dict[str, int]:
        """How many events of each run are stored, changes of its state left out."""
        query = "SELECT run, COUNT(*) FROM events WHERE comparison = ? AND kind <> 'state' GROUP BY run"
        with self._reading() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query, (comparison_id,))}

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


def _events(found: Sequence[sqlite3.Row]) -> list[dict[str, Any]]:
    """Rows of `seq` and `body` as events. Parsed together they share the names of their fields in memory."""
    bodies = json.loads(f"[{','.join(row['body'] for row in found)}]")
    return [{**body, "seq": row["seq"]} for body, row in zip(bodies, found, strict=True)]
