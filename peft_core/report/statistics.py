"""What several seeds say together: mean, spread, and paired differences to a reference.

Two intervals, never mixed: `ci95` is Student's t over seeds; `bootstrap95`, given where there is one seed alone, is a
paired bootstrap over evaluation rows (Efron and Tibshirani 1993, ch. 13, percentiles) and says nothing of other seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict

FEWEST_FLIPPED = 6
"""Seeds from which a sign-flip test is given: with fewer, p cannot fall below 0.05."""
MOST_EXACT = 16
"""Seeds up to which all 2^n sign flips are counted."""
DRAWN_FLIPS = 19_999
"""Sign flips drawn where there are more seeds; with the observed one, p is a multiple of 1/20,000."""
LEAST_DEFINED = 0.9
"""Share of the resamples that must have a score."""
ONE_SEED = "one seed: no interval over seeds"
BOOTSTRAP = "paired bootstrap over evaluation rows"

Resampled = Mapping[int, Sequence[float | None]]
"""By seed: the scores of a run's resampled evaluation rows."""


class Spread(TypedDict):
    """Several seeds as one line. ci95: Student-t interval of the mean; None from a single seed."""

    n: int
    mean: float | None
    std: float | None
    ci95: list[float] | None


class Versus(TypedDict):
    """Paired difference to a reference, over the seeds that both have.

    std: of the differences. ci95: their t interval, from two seeds on. bootstrap95: from one seed, over evaluation
    rows. p_sign_flip: two-sided, from six seeds on; p_holm: the same, corrected for the number of methods.
    note: what is missing and what stands instead.
    """

    reference: str
    mean_difference: float | None
    std: float | None
    ci95: list[float] | None
    n: int
    bootstrap95: list[float] | None
    p_sign_flip: float | None
    p_holm: float | None
    note: str | None


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation and the interval of the mean. One value has no spread, none has no mean."""
    if not values:
        return Spread(n=0, mean=None, std=None, ci95=None)
    mean = statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(n=len(values), mean=mean, std=std, ci95=_interval(mean, std, len(values)))


def paired(
    values: Mapping[int, float],
    reference: Mapping[int, float],
    name: str,
    resampled: Resampled | None = None,
    reference_resampled: Resampled | None = None,
) -> Versus:
    """Difference `values - reference`, seed by seed.

    Args:
        values, reference: score by seed.
        name: the reference's label.
        resampled, reference_resampled: scores on the same resamples of the evaluation rows, for a single seed.
    """
    shared = [seed for seed in values if seed in reference]
    differences = [values[seed] - reference[seed] for seed in shared]
    line = spread(differences)
    rows = _bootstrap(shared[0], resampled or {}, reference_resampled or {}) if len(shared) == 1 else None
    return Versus(
        reference=name,
        mean_difference=line["mean"],
        std=line["std"],
        ci95=line["ci95"],
        n=line["n"],
        bootstrap95=rows,
        p_sign_flip=sign_flip_p(differences),
        p_holm=None,
        note=_note(len(shared), rows),
    )


def _note(count: int, rows: Sequence[float] | None) -> str | None:
    if count != 1:
        return None if count else "no seed in common with the reference"
    return f"{ONE_SEED}; {BOOTSTRAP} instead" if rows else ONE_SEED


def _bootstrap(seed: int, one: Resampled, other: Resampled) -> list[float] | None:
    """The 2.5 and 97.5 percentiles of the difference over resamples; None where they are not the same resamples."""
    if seed not in one or seed not in other or len(one[seed]) != len(other[seed]):
        return None
    pairs = zip(one[seed], other[seed], strict=True)
    known = [a - b for a, b in pairs if a is not None and b is not None]
    if len(known) < 2 or len(known) < LEAST_DEFINED * len(one[seed]):
        return None
    cuts = statistics.quantiles(known, n=40, method="inclusive")
    return [cuts[0], cuts[-1]]


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of the mean difference when every pair's sign is as likely as not; None for fewer than six pairs.

    Exact over all 2^n flips up to 16 pairs; else over drawn flips, the observed one counted among them (Phipson and
    Smyth 2010), from a fixed key.
    """
    count = len(differences)
    if count < FEWEST_FLIPPED:
        return None
    import numpy as np

    values = np.abs(np.asarray(differences, dtype=float))
    reached = abs(math.fsum(differences)) - 1e-12 * values.sum()
    if count > MOST_EXACT:
        signs = np.random.default_rng([count, DRAWN_FLIPS]).integers(0, 2, (DRAWN_FLIPS, count)) * 2 - 1
        return float((1 + (np.abs(signs @ values) >= reached).sum()) / (1 + DRAWN_FLIPS))
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums + value, sums - value))
    return float((np.abs(sums) >= reached).mean())


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979) over those that are there; the others stay None."""
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        corrected[place] = largest
    return corrected


def _interval(mean: float, std: float | None, count: int) -> list[float] | None:
    if std is None:
        return None
    half = _t_quantile(count - 1) * std / math.sqrt(count)
    return [mean - half, mean + half]


def _t_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t."""
    from scipy.special import stdtrit  # scipy.special alone: scipy.stats takes ten times as long to import

    return float(stdtrit(freedom, 0.975))
