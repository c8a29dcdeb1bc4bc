"""What this project measured, a row for each method and task, each with the mark that says how: model, data, seeds,
machine. They stand beside quoted figures and are never among them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from peft_core.report.measured import measured_only
from peft_core.report.reproduction import CLAIM, FILE

Row = dict[str, Any]
Document = Mapping[str, Any]

ENCODER_FILE = "assets/benchmarks/real_encoder.json"
ENCODER_MISSING = f"{ENCODER_FILE} is not here; python scripts/bench_real.py measures and writes it."


def shipped_encoder() -> dict[str, Any] | None:
    """What `scripts/bench_real.py` measured; None where it was not measured yet."""
    file = resources.files("assets") / "benchmarks" / "real_encoder.json"
    if not file.is_file():
        return None
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def mark(model: str, data: str, seeds: Sequence[int], machines: Iterable[str]) -> str:
    """What stands beside a measured figure wherever it is shown."""
    counted = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"measured: {model}, {data}, {counted}, {'; '.join(machines)}"


@measured_only
def reproduction_rows(document: Document) -> list[Row]:
    """Rows of a reproduction, each method of a task once, in the group that has it first.

    Returns: dicts with mark, file, group, label, method, model, task, metric, score (mean over seeds), std, n, steps,
    trainable, learning_rate.
    """
    plan, places = document["plan"], document["environments"]
    rows: dict[tuple[str, str], Row] = {}
    for group, summary in document["summary"].items():
        for row in summary if group != CLAIM else ():
            task, method = row["task"], row["method"]
            cells = [cell for cell in document["cells"] if (cell["task"], cell["method"]) == (task, method)]
            if (task, method) in rows or not cells:
                continue
            model = plan["models"][task]
            machines = _machines(places[cell["environment"]] for cell in cells)
            seeds = sorted({cell["seed"] for cell in cells})
            rows[task, method] = {
                "mark": mark(model, f"{task} (made by code)", seeds, machines),
                "file": FILE,
                "group": plan["titles"][group],
                "label": row["label"],
                "model": model,
                "score": row["mean"],
                "steps": cells[0]["steps"],
                **{name: row[name] for name in ("method", "task", "metric", "std", "n", "trainable", "learning_rate")},
            }
    return list(rows.values())


@measured_only
def encoder_rows(document: Document) -> list[Row]:
    """Rows of a pretrained encoder on real rows, as `reproduction_rows` gives them, with interval: of the accuracy,
    a bootstrap over the evaluation rows."""
    model = document["model"]["name"].partition(" (")[0]
    found = []
    for row in document["summary"]:
        cells = [cell for cell in document["cells"] if (cell["task"], cell["method"]) == (row["task"], row["method"])]
        machines = _machines(cell["environment"] for cell in cells)
        found.append(
            {
                "mark": mark(model, f"{row['task']}, {row['eval_rows']:,} evaluation rows", row["seeds"], machines),
                "file": ENCODER_FILE,
                "group": document["title"],
                "label": row["method"],
                "model": model,
                "score": row["mean"],
                "n": len(row["seeds"]),
                **{name: row[name] for name in ("method", "task", "metric", "std", "steps", "trainable")},
                **{name: row[name] for name in ("learning_rate", "interval")},
            }
        )
    return found


def _machines(places: Iterable[Mapping[str, Any]]) -> list[str]:
    """Processors or devices with their threads, each once."""
    told = []
    for place in places:
        threads = place["threads"]
        told.append(f"{place['device_name']}, {threads} thread{'' if threads == 1 else 's'}")
    return sorted(set(told))
