"""Scores of resampled evaluation rows, for a paired bootstrap between runs that share their rows.

A resample is how often each row is drawn, n times in all, with replacement. It depends on (data seed, place of the
task, number of rows) alone, so that all runs of a comparison are scored on the same resamples. Every score comes from
sums over rows weighted by these counts, so that a thousand resamples cost about one evaluation of the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
DIGITS = 6
"""Decimal places kept of a score."""
_CELLS = 1_000_000
"""Counts held at once, resamples x rows."""

Rescore = Callable[[np.ndarray], np.ndarray]
"""float64 (resamples, rows) counts to (resamples,) scores, NaN where a score is not defined."""


@dataclass(frozen=True)
class Outcomes:
    """What a model made of each evaluation row, as far as one metric asks. Nothing is computed before `rescore`."""

    rows: int
    rescore: Rescore


def resampled_scores(
    outcomes: Sequence[Outcomes], data_seed: int, resamples: int = RESAMPLES
) -> tuple[float | None, ...]:
    """The metric on each resample, a mean over tasks where there are several; None where one is not defined."""
    parts = [_of_task(part, data_seed, place, resamples) for place, part in enumerate(outcomes)]
    means = np.mean(parts, axis=0)
    return tuple(round(float(value), DIGITS) if math.isfinite(value) else None for value in means)


def _of_task(outcomes: Outcomes, data_seed: int, place: int, resamples: int) -> np.ndarray:
    return np.concatenate([outcomes.rescore(part) for part in counts(outcomes.rows, data_seed, place, resamples)])


def counts(rows: int, data_seed: int, place: int = 0, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each row is drawn: float64 (some of the resamples, rows), part by part."""
    generator = np.random.default_rng([data_seed, place, rows])
    size = max(1, _CELLS // max(rows, 1))
    for start in range(0, resamples, size):
        drawn = generator.integers(0, rows, (min(size, resamples - start), rows))
        yield np.stack([np.bincount(line, minlength=rows) for line in drawn]).astype(np.float64)


def mean_over_rows(values: np.ndarray) -> Rescore:
    """A metric that is a mean over rows of (rows,) values."""
    return lambda drawn: drawn @ values / drawn.sum(1)


def class_rescore(metric: str, labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    """Accuracy, F1 of class 1 or Matthews correlation, from int (rows,) classes; as `scores` defines them."""
    if metric == "accuracy":
        return mean_over_rows((labels == predictions).astype(np.float64))
    return _f1(labels, predictions) if metric == "f1" else _matthews(labels, predictions)


def _f1(labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    hits = ((labels == 1) & (predictions == 1)).astype(np.float64)
    called = (labels == 1).astype(np.float64) + (predictions == 1)

    def rescore(drawn: np.ndarray) -> np.ndarray:
        total = drawn @ called
        return 2 * (drawn @ hits) / np.where(total > 0, total, 1)

    return rescore


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    """Gorodkin 2004 for K classes, from how often each is true and is called; 0 where one side is constant."""
    names = np.unique(np.concatenate((labels, predictions)))
    true, called = (np.equal.outer(side, names).astype(np.float64) for side in (labels, predictions))
    right = (labels == predictions).astype(np.float64)

    def rescore(drawn: np.ndarray) -> np.ndarray:
        t, p, n = drawn @ true, drawn @ called, drawn.sum(1)
        spread = (n**2 - (p**2).sum(1)) * (n**2 - (t**2).sum(1))
        return ((drawn @ right) * n - (t * p).sum(1)) / np.sqrt(np.where(spread > 0, spread, np.inf))

    return rescore


def number_rescore(metric: str, labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    """Pearson, Spearman or explained variance, from float (rows, outputs); a mean over outputs."""
    one = {"pearson": _pearson, "spearman": _spearman, "r2": _r2}[metric]
    columns = [one(labels[:, column], predictions[:, column]) for column in range(labels.shape[1])]
    return lambda drawn: np.mean([rescore(drawn) for rescore in columns], axis=0)


def _pearson(labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    return lambda drawn: _correlation(drawn, labels - labels.mean(), predictions - predictions.mean())


def _spearman(labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    return lambda drawn: _correlation(drawn, _ranks(drawn, labels), _ranks(drawn, predictions))


def _correlation(drawn: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weighted correlation of x and y, (rows,) or (resamples, rows); NaN where one of them does not vary."""
    n = drawn.sum(1, keepdims=True)
    x, y = (side - (drawn * side).sum(1, keepdims=True) / n for side in (x, y))
    square_x, square_y = (drawn * x * x).sum(1), (drawn * y * y).sum(1)
    flat = (square_x <= 1e-24 * n[:, 0]) | (square_y <= 1e-24 * n[:, 0])
    return np.where(flat, np.nan, (drawn * x * y).sum(1) / np.sqrt(np.where(flat, 1, square_x * square_y)))


def _ranks(drawn: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each row's rank within a resample, ties sharing their mean rank: (resamples, rows)."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(drawn[:, order], starts, axis=1)
    return (sizes.cumsum(1) - (sizes - 1) / 2)[:, group]


def _r2(labels: np.ndarray, predictions: np.ndarray) -> Rescore:
    """As scikit-learn: 0 where the labels do not vary, 1 if they are met exactly then."""
    squares, centred = (labels - predictions) ** 2, labels - labels.mean()

    def rescore(drawn: np.ndarray) -> np.ndarray:
        n, missed = drawn.sum(1), drawn @ squares
        total = drawn @ centred**2 - (drawn @ centred) ** 2 / n
        flat = total <= 1e-24 * n
        return np.where(flat, (missed == 0).astype(float), 1 - missed / np.where(flat, 1, total))

    return rescore
