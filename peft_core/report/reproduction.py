"""What `scripts/reproduce.py` measured, as plain figures and sentences: the page and the Markdown both show this."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from peft_core.report.measured import measured_only

Row = dict[str, Any]
Document = Mapping[str, Any]

FILE = "assets/benchmarks/reproduce.json"
MISSING = f"Nothing to show yet: {FILE} is not here; python scripts/reproduce.py measures and writes it."
CLAIM = "claim"
"""The part of the summary that is not a group of methods."""
SIDES = ("above 0", "below 0", "across 0", "undefined (one seed)")
UNCORRECTED = "Each interval stands by itself: none is corrected for the number of comparisons."
ROW_FIGURES = ("label", "method", "n", "runs", "mean", "std", "trainable", "rank_numerical_mean", "rank_effective_mean")
DIFFERENCE = ("reference", "n", "mean_difference", "ci95")


def shipped_reproduction() -> dict[str, Any] | None:
    """The document in assets/; None where it was not measured yet."""
    file = resources.files("assets") / "benchmarks" / "reproduce.json"
    if not file.is_file():
        return None
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def shown(document: Document) -> dict[str, Any]:
    """A document as the page shows it.

    Returns:
        title, what, measured (a sentence), file, commands; claim (title, sentences, rows); groups (name, title, and a
        table a task: task, model, metric, reference, rows).
    """
    titles, models, summary = document["plan"]["titles"], document["plan"]["models"], document["summary"]
    claim = claim_rows(summary[CLAIM])
    return {
        "title": document["title"],
        "what": document["what"],
        "measured": measured_line(document),
        "file": FILE,
        "commands": document["commands"],
        "claim": {"title": titles[CLAIM], "sentences": claim_sentences(claim), "rows": claim},
        "groups": [
            {"name": name, "title": titles[name], "tables": tables_by_task(rows, models)}
            for name, rows in summary.items()
            if name != CLAIM
        ],
    }


def measured_line(document: Document) -> str:
    """Where, with which torch, how long and on which seeds."""
    places, cells = document["environments"], document["cells"]
    machines = sorted({f"{place['device_name']}, {_counted(place['threads'], 'thread')}" for place in places})
    torches = sorted({place["versions"]["torch"] for place in places})
    steps = ", ".join(f"{count:,}" for count in sorted({cell["steps"] for cell in cells}))
    seeds = ", ".join(str(seed) for seed in sorted({cell["seed"] for cell in cells}))
    return (
        f"Measured on {'; '.join(machines)}; torch {', '.join(torches)}; {steps} steps a run; seeds {seeds}, "
        f"of which a method has n; learning rates from {document['rates']['file']}."
    )


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def side_of_zero(interval: Sequence[float] | None) -> str:
    """Where an interval of a difference lies, one of `SIDES`; one that ends at 0 lies across it."""
    if interval is None:
        return SIDES[3]
    return SIDES[0] if interval[0] > 0 else SIDES[1] if interval[1] < 0 else SIDES[2]


@measured_only
def claim_rows(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The pairs of the claim, each with where its interval lies."""
    return [
        {"task": row["task"], "method": row["method"], **{name: row[name] for name in DIFFERENCE}}
        | {"side": side_of_zero(row["ci95"])}
        for row in rows
    ]


def claim_sentences(rows: Sequence[Row]) -> list[str]:
    """For each pair of methods on which tasks the interval lies above, below or across 0, whichever way it falls."""
    pairs = list(dict.fromkeys((row["method"], row["reference"]) for row in rows))
    said = []
    for pair in pairs:
        of = [row for row in rows if (row["method"], row["reference"]) == pair]
        parts = [
            f"{side} on {', '.join(row['task'] for row in of if row['side'] == side)}"
            for side in SIDES
            if any(row["side"] == side for row in of)
        ]
        opening = f"{pair[0]} minus {pair[1]}: the 95 % t interval of the paired difference is"
        said.append(f"{opening} {'; '.join(parts)}.")
    return [*said, UNCORRECTED] if said else []


@measured_only
def tables_by_task(rows: Sequence[Mapping[str, Any]], models: Mapping[str, str]) -> list[Row]:
    """A group's rows, a table for each task."""
    return [
        _table([row for row in rows if row["task"] == task], models[task])
        for task in dict.fromkeys(row["task"] for row in rows)
    ]


def _table(rows: Sequence[Mapping[str, Any]], model: str) -> Row:
    differences = [row["versus"] for row in rows if row["versus"]]
    return {
        "task": rows[0]["task"],
        "model": model,
        "metric": rows[0]["metric"],
        "reference": differences[0]["reference"] if differences else rows[0]["label"],
        "rows": [
            {name: row[name] for name in (*ROW_FIGURES, "learning_rate", "seconds")}
            | {"versus": row["versus"] and {name: row["versus"][name] for name in DIFFERENCE}}
            for row in rows
        ],
    }
