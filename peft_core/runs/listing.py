"""Lists of runs over all comparisons: searched, filtered, sorted and paged by the store, whatever their number.

Two indexes hold all that is searched and sorted by, so that no run's result is read but those on the page.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from peft_core.records import Frozen, RunState
from peft_core.runs.visits import OWN, SEEN

FILTERS = {"state": "runs.state", "method": "method_id", "task": "task", "model": "model"}
SORTS = {
    "created": "comparisons.number",
    "method": "label COLLATE NOCASE",
    "seed": "seed",
    "task": "task COLLATE NOCASE",
    "model": "model COLLATE NOCASE",
    "state": "runs.state",
    "score": "score",
}
_LISTED = """FROM comparisons INDEXED BY comparisons_listed CROSS JOIN runs INDEXED BY runs_listed
    ON comparison = id WHERE hidden = 0"""
_NAMES, _NOTES = ("run", "label", "method_id", "model", "task"), ("runs.note", "comparisons.note")
_TEXT = " || ' ' || ".join((*_NAMES, *_NOTES))
_TEXT_SEEN = " || ' ' || ".join((*_NAMES, *(f"CASE WHEN {OWN} THEN {note} ELSE '' END" for note in _NOTES)))
_FIGURES = ("trainable", "seconds", "stored_bytes", "rank.effective_mean", "rank.numerical_mean")


class RunQuery(Frozen):
    """Which runs, in which order. Empty: no such condition."""

    search: str = Field("", max_length=200, description="words; each has to occur in the ids, names or notes")
    state: str = Field("", max_length=20)
    method: str = Field("", max_length=100)
    task: str = Field("", max_length=2000)
    model: str = Field("", max_length=500)
    sort: Literal["created", "method", "seed", "task", "model", "state", "score"] = "created"
    up: bool = False
    offset: int = Field(0, ge=0, le=10_000_000)
    limit: int = Field(50, ge=1, le=200)


@dataclass(frozen=True)
class ListedRun:
    """A run as a list shows it. figures: of its result, by name; created: ISO 8601, UTC."""

    run: str
    comparison: str
    created: str
    label: str
    method: str
    seed: int
    state: RunState
    error: str | None
    step: int
    total_steps: int | None
    model: str
    task: str
    metric: str | None
    score: float | None
    note: str
    comparison_note: str
    imported: bool
    figures: dict[str, float | None]


@dataclass(frozen=True)
class RunPage:
    """total: runs that fit the query, on all pages."""

    total: int
    rows: tuple[ListedRun, ...]


def page(connection: sqlite3.Connection, query: RunQuery, seen_by: str | None = None) -> RunPage:
    """The runs at `offset`. Those without a value to sort by come last. seen_by: as in `Reader.comparisons`; notes of
    others are not searched then."""
    conditions, values = _conditions(query, seen_by)
    total = connection.execute(f"SELECT count(*) {_LISTED}{conditions}", values).fetchone()[0]
    by, way = SORTS[query.sort], "ASC" if query.up else "DESC"
    order = f"{by} IS NULL, {by} {way}, comparisons.number DESC, runs.number"
    found = connection.execute(
        f"SELECT run {_LISTED}{conditions} ORDER BY {order} LIMIT ? OFFSET ?", [*values, query.limit, query.offset]
    ).fetchall()
    return RunPage(total, tuple(_row(connection, row["run"]) for row in found))


def choices(connection: sqlite3.Connection, seen_by: str | None = None) -> dict[str, list[tuple[str, int]]]:
    """The values of every filter with the number of runs, by name."""
    seen, values = ("", []) if seen_by is None else (SEEN, [seen_by])
    return {
        name: [
            (str(row[0]), int(row[1]))
            for row in connection.execute(f"SELECT {column}, count(*) {_LISTED} {seen} GROUP BY 1 ORDER BY 1", values)
        ]
        for name, column in FILTERS.items()
    }


def _conditions(query: RunQuery, seen_by: str | None) -> tuple[str, list[Any]]:
    parts: list[str] = []
    values: list[Any] = []
    text, before = _TEXT, []
    if seen_by is not None:
        parts.append(f" {SEEN}")
        values.append(seen_by)
        text, before = _TEXT_SEEN, [seen_by] * len(_NOTES)
    for name, column in FILTERS.items():
        if wanted := getattr(query, name):
            parts.append(f" AND {column} = ?")
            values.append(wanted)
    for word in query.search.split():
        parts.append(f" AND {text} LIKE ? ESCAPE '\\'")
        escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        values += [*before, f"%{escaped}%"]
    return "".join(parts), values


def _row(connection: sqlite3.Connection, run: str) -> ListedRun:
    figures = ", ".join(f"json_extract(result, '$.{name}') AS \"{name}\"" for name in _FIGURES)
    row = connection.execute(
        f"""SELECT run, id, created, label, method_id, seed, state, error, step, total_steps, model, task, metric,
            score, runs.note AS run_note, comparisons.note AS comparison_note,
            json_extract(environment, '$.imported') IS NOT NULL AS imported, {figures}
            FROM runs JOIN comparisons ON comparison = id WHERE run = ?""",
        (run,),
    ).fetchone()
    return ListedRun(
        run=row["run"],
        comparison=row["id"],
        created=row["created"],
        label=row["label"],
        method=row["method_id"],
        seed=row["seed"],
        state=RunState(row["state"]),
        error=row["error"],
        step=row["step"],
        total_steps=row["total_steps"],
        model=row["model"],
        task=row["task"],
        metric=row["metric"],
        score=row["score"],
        note=row["run_note"],
        comparison_note=row["comparison_note"],
        imported=bool(row["imported"]),
        figures={name.rpartition(".")[2] if "." in name else name: row[name] for name in _FIGURES},
    )
