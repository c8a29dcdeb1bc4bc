"""Loss and scores on evaluation rows, and the rank of what was learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from peft_core.methods import Attached, WeightUpdate
from peft_core.metrics.rank import Rank, ranks_of_factors, ranks_of_matrices
from peft_core.records import LayerRank, RankOf, TrainingConfig
from peft_core.tasks import TaskInfo
from peft_core.training.data import TaskData
from peft_core.training.problems import Evaluation

MEAN = "mean_score"
"""Name of the score of several tasks: the mean of their first metrics."""
DENSE_WORK = 1e9
"""Sum of m n min(m, n) over dense updates (full fine-tuning) that is worth an SVD at every evaluation, about 2 seconds
of one core. The embedded models stay below; of larger ones the last and the best evaluations are measured."""


def primary_metric(infos: Sequence[TaskInfo]) -> str:
    """The score that curves and tables show."""
    return infos[0].metrics[0] if len(infos) == 1 else MEAN


def evaluate(
    attached: Attached, tasks: Sequence[TaskData], training: TrainingConfig, validation: bool = False
) -> Evaluation:
    """Scores by metric name, the mean loss and what came of each row, on the evaluation rows or those for validation.

    With several tasks the names are ``<task>.<metric>``, and `MEAN` stands before them.
    """
    parts = []
    for number, task in enumerate(tasks):
        with turn_of(attached, number):
            rows = task.validation if validation else task.evaluation
            assert rows is not None
            parts.append(task.problem.evaluate(attached, rows, task.info, training))
    if len(parts) == 1:
        return parts[0]
    named = {
        f"{task.info.id}.{name}": value
        for task, part in zip(tasks, parts, strict=True)
        for name, value in part.scores.items()
    }
    firsts = [part.scores[task.info.metrics[0]] for task, part in zip(tasks, parts, strict=True)]
    found = tuple(one for part in parts for one in part.outcomes or ())
    loss = sum(part.loss for part in parts) / len(parts)
    return Evaluation({MEAN: mean_score(firsts)} | named, loss, found if len(found) == len(parts) else None)


def mean_score(values: Sequence[float | None]) -> float | None:
    """Their mean; None where one is not defined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


@contextmanager
def turn_of(attached: Attached, task: int) -> Iterator[None]:
    """Within it the attachment serves this task."""
    before, attached.task = attached.task, task
    try:
        yield
    finally:
        attached.task = before


@torch.no_grad()
def layer_ranks(
    attached: Attached,
    tasks: Sequence[str] = ("",),
    tolerance: float | None = None,
    *,
    spectra: bool = False,
    cheap: bool = False,
) -> tuple[RankOf, tuple[LayerRank, ...]]:
    """What kind of map was measured, and its rank at every adapted site. Never forms a factored Delta W.

    A method whose weights differ from task to task is measured in each; the names of its sites end in ``@<task>``.

    Args:
        tolerance: as in `metrics.rank.ranks_of_factors`.
        spectra: with all singular values of every site.
        cheap: no layers where dense updates would take more than `DENSE_WORK`.
    """
    attached.train(False)
    kind: RankOf = "delta"
    layers: list[LayerRank] = []
    for number, name in enumerate(tasks if attached.on_tasks else ("",)):
        with turn_of(attached, number):
            updates = attached.updates()
        if cheap and sum(map(_dense_work, updates)) > DENSE_WORK:
            return updates[0].kind, ()
        kind = updates[0].kind if updates else kind
        ending = f"@{name}" if name and len(tasks) > 1 else ""
        ranks = _ranks(updates, tolerance)
        layers += [_layer_rank(*pair, ending, spectra) for pair in zip(updates, ranks, strict=True)]
    return kind, tuple(layers)


def _dense_work(update: WeightUpdate) -> int:
    """m n min(m, n) of an update without factors, to which the cost of its singular values is proportional."""
    return update.delta.numel() * min(update.delta.shape) if update.delta is not None else 0


def _ranks(updates: Sequence[WeightUpdate], tolerance: float | None) -> list[Rank]:
    """Ranks in the order of the updates; those with factors together, layers of equal shape at once."""
    pairs = [(u.left, u.right) for u in updates if u.left is not None and u.right is not None]
    deltas = [u.delta for u in updates if u.delta is not None]
    factored, dense = iter(ranks_of_factors(pairs, tolerance)), iter(ranks_of_matrices(deltas, tolerance))
    return [next(factored if update.delta is None else dense) for update in updates]


def _layer_rank(update: WeightUpdate, rank: Rank, ending: str, spectra: bool) -> LayerRank:
    return LayerRank(
        site=update.site + ending,
        layer=update.layer,
        role=update.role,
        numerical=rank.numerical,
        effective=rank.effective,
        stable=rank.stable,
        norm=rank.norm,
        bound=update.bound,
        orthogonality=rank.orthogonality if update.kind == "delta" else None,
        tolerance=rank.tolerance,
        spectrum=tuple(float(f"{value:.6g}") for value in rank.singular_values.tolist()) if spectra else None,
    )


def summarize_ranks(layers: tuple[LayerRank, ...]) -> dict[str, float | None] | None:
    """The `rank` entry of results.json. tolerance: the largest of the layers'; see `Rank`."""
    if not layers:
        return None
    count = len(layers)
    distances = [layer.orthogonality for layer in layers if layer.orthogonality is not None]
    return {
        "numerical_mean": sum(layer.numerical for layer in layers) / count,
        "numerical_max": max(layer.numerical for layer in layers),
        "effective_mean": sum(layer.effective for layer in layers) / count,
        "stable_mean": sum(layer.stable for layer in layers) / count,
        "bound": max(layer.bound for layer in layers),
        "orthogonality_mean": sum(distances) / len(distances) if distances else None,
        "tolerance": max((layer.tolerance for layer in layers if layer.tolerance is not None), default=None),
    }
