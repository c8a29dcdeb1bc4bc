"""Task scores from a head's outputs, by scikit-learn and scipy; what no score can be given for is None."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from peft_core.metrics.resampling import Outcomes, class_rescore, number_rescore
from peft_core.records import InputError

Metric = Callable[[np.ndarray, np.ndarray], float | None]


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Share of rows whose class is right."""
    return float((labels == predictions).mean())


def f1(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """F1 of class 1; 0 where no row is, or is called, class 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels == 1, predictions == 1, zero_division=0))


def matthews_correlation(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Matthews correlation; 0 for constant predictions."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Linear correlation, a mean over outputs; None where one side does not vary."""
    from scipy.stats import pearsonr

    return _mean_over_outputs(labels, predictions, lambda x, y: float(pearsonr(x, y).statistic))


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Rank correlation, a mean over outputs; None where one side does not vary."""
    from scipy.stats import spearmanr

    return _mean_over_outputs(labels, predictions, lambda x, y: float(spearmanr(x, y).statistic))


def r2(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Explained share of the variance, a mean over outputs; None for fewer than two rows."""
    from sklearn.metrics import r2_score

    return float(r2_score(labels, predictions)) if len(labels) > 1 else None


CLASS_METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "matthews_correlation": matthews_correlation}
NUMBER_METRICS: dict[str, Metric] = {"pearson": pearson, "spearman": spearman, "r2": r2}


def score(names: Sequence[str], outputs: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Scores by metric name, each None where it is not defined or not finite.

    Args:
        names: keys of `CLASS_METRICS` or `NUMBER_METRICS`.
        outputs: (rows, classes) head outputs, whose largest is the prediction, or (rows, targets) numbers.
        labels: int64 (rows,) classes, or float (rows,) or (rows, targets).

    Raises:
        InputError: an unknown metric.
    """
    predictions = outputs.detach().float().cpu()
    if not bool(torch.isfinite(predictions).all()) or len(labels) == 0:
        return {name: None for name in names}
    return {name: _one(name, predictions, labels.detach().cpu()) for name in names}


def outcomes(name: str, outputs: Tensor, labels: Tensor) -> Outcomes | None:
    """What `name` needs to be computed again on resampled rows; None where `score` has nothing either.

    Args:
        name, outputs, labels: as in `score`.
    """
    predictions, rows = outputs.detach().float().cpu(), len(labels)
    if not bool(torch.isfinite(predictions).all()) or rows == 0:
        return None
    if name in CLASS_METRICS:
        return Outcomes(rows, class_rescore(name, labels.cpu().numpy(), predictions.argmax(-1).numpy()))
    numbers = (side.double().reshape(rows, -1).numpy() for side in (labels.detach().cpu(), predictions))
    return Outcomes(rows, number_rescore(name, *numbers))


def baseline(names: Sequence[str], train_labels: Tensor, eval_labels: Tensor) -> dict[str, float | None]:
    """Scores of a model that ignores its input: the training rows' majority class, or their mean.

    Correlations of a constant are not defined; as a floor they stand as 0.
    """
    scores: dict[str, float | None] = {}
    for name in names:
        if name in CLASS_METRICS:
            predictions = torch.full_like(eval_labels, int(torch.bincount(train_labels).argmax()))
            scores[name] = _checked(CLASS_METRICS[name](eval_labels.cpu().numpy(), predictions.cpu().numpy()))
        elif name in ("pearson", "spearman"):
            scores[name] = 0.0
        else:
            constant = train_labels.float().mean(0).expand_as(eval_labels)
            scores[name] = _one(name, constant, eval_labels)
    return scores


def _one(name: str, outputs: Tensor, labels: Tensor) -> float | None:
    if name in CLASS_METRICS:
        return _checked(CLASS_METRICS[name](labels.numpy(), outputs.argmax(-1).numpy()))
    if name not in NUMBER_METRICS:
        raise InputError("metric", name, f"it must be one of {', '.join((*CLASS_METRICS, *NUMBER_METRICS))}")
    rows = len(labels)
    numbers = labels.double().reshape(rows, -1).numpy()
    return _checked(NUMBER_METRICS[name](numbers, outputs.double().reshape(rows, -1).numpy()))


def _checked(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _mean_over_outputs(
    labels: np.ndarray, predictions: np.ndarray, correlate: Callable[[np.ndarray, np.ndarray], float]
) -> float | None:
    if len(labels) < 2 or bool((np.ptp(labels, axis=0) == 0).any() or (np.ptp(predictions, axis=0) == 0).any()):
        return None
    columns = [correlate(labels[:, column], predictions[:, column]) for column in range(labels.shape[1])]
    return float(np.mean(columns))
