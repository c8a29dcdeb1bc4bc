"""Events of a comparison to plain curves: per run, and per method with the mean and the range over seeds."""

from __future__ import annotations

import bisect
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from peft_core.records import View

Axis = Literal["step", "seconds", "flops"]
Measure = Literal["score", "loss", "numerical", "effective", "stable", "active_parameters"]
STEP_COLUMNS = (
    "step",
    "loss",
    "seconds",
    "flops",
    "adapter_flops_executed",
    "adapter_flops_nominal",
    "active_parameters",
)
RANK_MEASURES = ("numerical", "effective", "stable")
Columns = dict[str, list[Any]]


@dataclass
class RunPoints:
    """What one run has reported so far, column by column."""

    steps: Columns = field(default_factory=lambda: {name: [] for name in STEP_COLUMNS})
    evaluations: Columns = field(default_factory=lambda: {"step": [], "scores": [], "loss": []})
    ranks: Columns = field(default_factory=lambda: {name: [] for name in ("step", *RANK_MEASURES, "layers")})


@dataclass(frozen=True)
class Curve:
    """One line: y against x, with the lowest and highest seed. n: seeds behind each point."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    n: list[int]


def points(events: Iterable[Mapping[str, Any]]) -> dict[str, RunPoints]:
    """Events in order to columns by run. A resumed run that repeats a step replaces what came from there on."""
    runs: dict[str, RunPoints] = defaultdict(RunPoints)
    for event in events:
        run = runs[event["run"]]
        if event["event"] == "step":
            _append(run.steps, {name: event.get(name) for name in STEP_COLUMNS})
        elif event["event"] == "eval":
            _append(run.evaluations, {name: event.get(name) for name in ("step", "scores", "loss")})
        elif event["event"] == "rank" and event["layers"]:
            _append(run.ranks, _rank_row(event))
    return dict(runs)


def _append(columns: Columns, row: Mapping[str, Any]) -> None:
    cut = bisect.bisect_left(columns["step"], row["step"])
    for name, column in columns.items():
        del column[cut:]
        column.append(row[name])


def _rank_row(event: Mapping[str, Any]) -> dict[str, Any]:
    layers = event["layers"]
    means = {name: statistics.fmean(layer[name] for layer in layers) for name in RANK_MEASURES}
    return {"step": event["step"], "layers": layers, **means}


def run_curve(
    run: RunPoints, measure: Measure, axis: Axis, metric: str | None, smoothing: float = 0.0
) -> dict[int, tuple[float, float]]:
    """step -> (x, y) of one run; steps without a finite figure are left out."""
    if measure == "score":
        steps = run.evaluations["step"]
        values = [scores.get(metric) for scores in run.evaluations["scores"]]
    elif measure in RANK_MEASURES:
        steps, values = run.ranks["step"], run.ranks[measure]
    else:
        steps, values = run.steps["step"], run.steps[measure]
    if measure == "loss" and smoothing > 0:
        values = smoothed(values, smoothing)
    found = ((step, position(run, step, axis), value) for step, value in zip(steps, values, strict=True))
    return {step: (x, float(y)) for step, x, y in found if x is not None and y is not None and math.isfinite(y)}


def position(run: RunPoints, step: int, axis: Axis) -> float | None:
    """Where a step lies on an axis: itself, or what the last step at or before it had used."""
    if axis == "step":
        return float(step)
    index = bisect.bisect_right(run.steps["step"], step) - 1
    if index >= 0:
        return float(run.steps[axis][index])
    return 0.0


def smoothed(values: Sequence[float | None], weight: float) -> list[float | None]:
    """Exponential mean with bias correction; gaps stay gaps. weight 0 leaves the values, 0.99 is very smooth."""
    mean, share = 0.0, 0.0
    result: list[float | None] = []
    for value in values:
        if value is None:
            result.append(None)
            continue
        mean = weight * mean + (1 - weight) * value
        share = weight * share + (1 - weight)
        result.append(mean / share)
    return result


def labels(view: View) -> list[str]:
    """The methods' labels in the order of the comparison."""
    return list(dict.fromkeys(run.label for run in view.runs)) or [str(m) for m in view.comparison.spec.methods]


def curves(view: View, measure: Measure, axis: Axis = "step", smoothing: float = 0.0, limit: int = 400) -> list[Curve]:
    """One curve per label: at every step the mean over the seeds that have reached it, and their range."""
    reported = points(view.events)
    lines = []
    for label in labels(view):
        runs = [reported[run.run] for run in view.runs if run.label == label and run.run in reported]
        found = [run_curve(run, measure, axis, view.comparison.metric, smoothing) for run in runs]
        lines.append(_mean_curve(label, found, limit))
    return lines


def spectra(view: View) -> list[Curve]:
    """Singular values per label, largest first: x counts them, y is their mean over layers and seeds.

    Of every run the selected evaluation, or the last one that recorded them. Layers with fewer values count only as
    far as these go.
    """
    reported = points(view.events)
    lines = []
    for label in labels(view):
        runs = [run for run in view.runs if run.label == label and run.run in reported]
        found = [_spectrum(reported[run.run], run.result.selected_step if run.result else None) for run in runs]
        lines.append(_mean_curve(label, [values for values in found if values], 2000))
    return lines


def _spectrum(run: RunPoints, selected: int | None) -> dict[int, tuple[float, float]]:
    rows = zip(run.ranks["step"], run.ranks["layers"], strict=True)
    known = {step: [layer["spectrum"] for layer in layers if layer.get("spectrum")] for step, layers in rows}
    steps = [step for step, layers in known.items() if layers]
    if not steps:
        return {}
    layers = known[selected if selected in steps else steps[-1]]
    most = max(len(values) for values in layers)
    return {
        place + 1: (place + 1.0, statistics.fmean(values[place] for values in layers if place < len(values)))
        for place in range(most)
    }


def _mean_curve(label: str, runs: Sequence[Mapping[int, tuple[float, float]]], limit: int) -> Curve:
    steps = decimated(sorted({step for run in runs for step in run}), limit)
    at = [[run[step] for run in runs if step in run] for step in steps]
    return Curve(
        label=label,
        x=[statistics.fmean(x for x, _ in group) for group in at],
        y=[statistics.fmean(y for _, y in group) for group in at],
        low=[min(y for _, y in group) for group in at],
        high=[max(y for _, y in group) for group in at],
        n=[len(group) for group in at],
    )


def decimated(items: Sequence[int], limit: int) -> list[int]:
    """At most about `limit` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    last = len(items) - 1
    return [items[round(index * last / (limit - 1))] for index in range(limit)]
