"""Loss and scores on evaluation rows, and the rank of what was learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

from peft_core.methods import Attached, WeightUpdate
from peft_core.metrics.rank import rank_of_factors, rank_of_matrix
from peft_core.records import LayerRank, TrainingConfig
from peft_core.tasks import TaskInfo
from peft_core.training.data import TaskData
from peft_core.training.problems import Evaluation

MEAN = "mean_score"
"""Name of the score of several tasks: the mean of their first metrics."""


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
    attached: Attached, tasks: Sequence[str] = ("",)
) -> tuple[Literal["delta", "linear_map"], tuple[LayerRank, ...]]:
    """What kind of map was measured, and its rank at every adapted site. Never forms a factored Delta W.

    A method whose weights differ from task to task is measured in each; the names of its sites end in ``@<task>``.
    """
    attached.train(False)
    kind: Literal["delta", "linear_map"] = "delta"
    layers: list[LayerRank] = []
    for number, name in enumerate(tasks if attached.on_tasks else ("",)):
        with turn_of(attached, number):
            updates = attached.updates()
        kind = updates[0].kind if updates else kind
        layers += [_layer_rank(update, f"@{name}" if name and len(tasks) > 1 else "") for update in updates]
    return kind, tuple(layers)


def _layer_rank(update: WeightUpdate, ending: str) -> LayerRank:
    if update.left is not None and update.right is not None:
        rank = rank_of_factors(update.left.detach(), update.right.detach())
    else:
        assert update.delta is not None
        rank = rank_of_matrix(update.delta.detach())
    return LayerRank(
        site=update.site + ending,
        layer=update.layer,
        role=update.role,
        numerical=rank.numerical,
        effective=rank.effective,
        stable=rank.stable,
        norm=rank.norm,
        bound=update.bound,
    )


def summarize_ranks(layers: tuple[LayerRank, ...]) -> dict[str, float | None] | None:
    """The `rank` entry of results.json."""
    if not layers:
        return None
    count = len(layers)
    return {
        "numerical_mean": sum(layer.numerical for layer in layers) / count,
        "numerical_max": max(layer.numerical for layer in layers),
        "effective_mean": sum(layer.effective for layer in layers) / count,
        "stable_mean": sum(layer.stable for layer in layers) / count,
        "bound": max(layer.bound for layer in layers),
    }
