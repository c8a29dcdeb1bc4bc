"""Events packed for a browser: columns per run instead of one object per event, with six significant digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from peft_core.report.series import RANK_MEASURES, STEP_COLUMNS, RunPoints, decimated, points

LIMIT = 2000


def packed(events: Iterable[Mapping[str, Any]], metric: str | None) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """run -> {"step": columns, "eval": columns, "rank": columns}; the steps of a long run are thinned to `LIMIT`."""
    return {name: _packed_run(run, metric) for name, run in points(events).items()}


def _packed_run(run: RunPoints, metric: str | None) -> dict[str, dict[str, list[Any]]]:
    kept = decimated(range(len(run.steps["step"])), LIMIT)
    return {
        "step": {name: [short(run.steps[name][index]) for index in kept] for name in STEP_COLUMNS},
        "eval": {
            "step": run.evaluations["step"],
            "score": [short(scores.get(metric)) for scores in run.evaluations["scores"]],
        },
        "rank": {name: [short(value) for value in run.ranks[name]] for name in ("step", *RANK_MEASURES)},
    }


def short(value: float | None) -> float | None:
    """Six significant digits, enough for a screen; a whole number stays whole; None for what is not finite."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
