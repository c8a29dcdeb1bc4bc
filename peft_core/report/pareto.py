"""Which methods no other one beats on two figures at once (Pareto 1896). A missing figure is missing, never 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, permutations
from typing import Any

from peft_core.report.measured import measured_only

Point = tuple[float | None, float | None]


@dataclass(frozen=True)
class Measure:
    """A figure of a table's row that methods are compared by."""

    key: str
    title: str
    higher_is_better: bool = False


SCORE = Measure("mean", "score", higher_is_better=True)
MEASURES = (
    SCORE,
    Measure("trainable", "trainable parameters"),
    Measure("stored_bytes", "stored bytes"),
    Measure("adapter_flops_nominal", "adapter FLOPs per token, nominal"),
    Measure("adapter_flops_executed", "adapter FLOPs per token, executed"),
    Measure("step_ms_median", "step time, ms"),
    Measure("peak_memory_bytes", "peak memory, bytes"),
    Measure("run_flops", "FLOPs of a run, executed"),
    Measure("energy_joules", "energy, J"),
)


def front(points: Sequence[Point], higher: tuple[bool, bool] = (False, False)) -> list[bool]:
    """Whether each point is on the front: none is at least as good on both figures and better on one.

    Args:
        points: two figures each; one with a missing or infinite figure is never on the front and beats nobody.
        higher: for each figure whether more is better.
    """
    signs = [-1 if more else 1 for more in higher]
    known = [
        (signs[0] * x, signs[1] * y, place)
        for place, (x, y) in enumerate(points)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]
    found, best = [False] * len(points), math.inf
    for (_, y), equal in groupby(sorted(known), key=lambda point: point[:2]):
        for *_, place in equal:
            found[place] = y < best
        best = min(best, y)
    return found


@measured_only
def fronts(table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything a chart of any two measures needs.

    Returns:
        measures: [{key, title, higher_is_better}], those that some row has. points: label -> key -> figure.
        fronts: ``"x y"`` -> labels on the front, the better x first.
    """
    shown = [measure for measure in MEASURES if any(row.get(measure.key) is not None for row in table)]
    return {
        "measures": [vars(measure) for measure in shown],
        "points": {row["label"]: {measure.key: row.get(measure.key) for measure in shown} for row in table},
        "fronts": {f"{x.key} {y.key}": _on_front(table, x, y) for x, y in permutations(shown, 2)},
    }


def _on_front(table: Sequence[Mapping[str, Any]], x: Measure, y: Measure) -> list[str]:
    points = [(row.get(x.key), row.get(y.key)) for row in table]
    on_it = front(points, (x.higher_is_better, y.higher_is_better))
    chosen = [row for row, is_on in zip(table, on_it, strict=True) if is_on]
    return [row["label"] for row in sorted(chosen, key=lambda row: row[x.key], reverse=x.higher_is_better)]
