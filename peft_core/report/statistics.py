"""What several seeds say together: mean, spread, and paired differences with their 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict


class Spread(TypedDict):
    """Several seeds as one line. ci95: Student-t interval of the mean; None from a single seed."""

    n: int
    mean: float | None
    std: float | None
    ci95: list[float] | None


class Versus(TypedDict):
    """Paired difference to a reference, over the seeds that both have."""

    reference: str
    mean_difference: float | None
    ci95: list[float] | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation and the interval of the mean. One value has no spread, none has no mean."""
    if not values:
        return Spread(n=0, mean=None, std=None, ci95=None)
    mean = statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(n=len(values), mean=mean, std=std, ci95=_interval(mean, std, len(values)))


def paired(values: Mapping[int, float], reference: Mapping[int, float], name: str) -> Versus:
    """Difference `values - reference`, seed by seed."""
    shared = [seed for seed in values if seed in reference]
    line = spread([values[seed] - reference[seed] for seed in shared])
    return Versus(reference=name, mean_difference=line["mean"], ci95=line["ci95"], n=line["n"])


def _interval(mean: float, std: float | None, count: int) -> list[float] | None:
    if std is None:
        return None
    half = _t_quantile(count - 1) * std / math.sqrt(count)
    return [mean - half, mean + half]


def _t_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t."""
    from scipy.special import stdtrit  # scipy.special alone: scipy.stats takes ten times as long to import

    return float(stdtrit(freedom, 0.975))
