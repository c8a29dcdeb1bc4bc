"""The rows of a comparison's tasks, read or generated, and encoded once for its backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from peft_core.records import Backbone, ComparisonSpec, InputError
from peft_core.tasks import Task, TaskInfo, get_tasks
from peft_core.training.problems import EVAL_BATCH, Encoded, Problem, problem_of


@dataclass(frozen=True)
class TaskData:
    """Encoded training and evaluation rows of a task."""

    info: TaskInfo
    train: Encoded
    evaluation: Encoded

    @property
    def problem(self) -> Problem:
        return problem_of(self.info)


def row_counts(spec: ComparisonSpec, info: TaskInfo) -> tuple[int, int]:
    """Training and evaluation rows that a spec asks for of a task.

    Raises:
        InputError: more than the task has, or fewer training rows than one batch.
    """
    train = spec.train_rows if spec.train_rows is not None else info.train_rows
    evaluation = spec.eval_rows if spec.eval_rows is not None else info.eval_rows
    if train > info.max_train_rows:
        raise InputError("train_rows", train, f"{info.id} has {info.max_train_rows} training rows")
    if evaluation > info.max_eval_rows:
        raise InputError("eval_rows", evaluation, f"{info.id} has {info.max_eval_rows} evaluation rows")
    if spec.training.batch_size > train:
        raise InputError("training.batch_size", spec.training.batch_size, f"it must be at most train_rows ({train})")
    return train, evaluation


def chosen_tasks(spec: ComparisonSpec) -> tuple[tuple[Task, Mapping[str, Any]], ...]:
    """The tasks of a comparison, each with its options."""
    return get_tasks(spec.task, spec.task_options)


def load_data(spec: ComparisonSpec, backbone: Backbone) -> tuple[TaskData, ...]:
    """Generates or reads the rows of a comparison's tasks and encodes them for its backbone."""
    return tuple(_load_task(task, options, spec, backbone) for task, options in chosen_tasks(spec))


def _load_task(task: Task, options: Mapping[str, Any], spec: ComparisonSpec, backbone: Backbone) -> TaskData:
    info, problem = task.info, problem_of(task.info)
    counts = zip(("train", "eval"), row_counts(spec, info), strict=True)
    rows = [task.rows(split, count, spec.data_seed, options) for split, count in counts]  # type: ignore[arg-type]
    train, evaluation = (problem.encode(part, info, backbone, spec.training) for part in rows)
    if task.teacher is not None:
        with torch.inference_mode(), task.teacher(backbone, spec.data_seed, options) as targets:
            train, evaluation = (_taught(part, backbone, targets) for part in (train, evaluation))
    return TaskData(info, *problem.settle(train, evaluation))


def _taught(part: Encoded, backbone: Backbone, targets: Any) -> Encoded:
    """The rows with targets computed by the task's teacher from the backbone itself."""
    return replace(part, labels=torch.cat(list(_targets(part, backbone, targets))))


def _targets(part: Encoded, backbone: Backbone, targets: Any) -> Iterator[Tensor]:
    device = next(backbone.model.parameters()).device
    for start in range(0, len(part), EVAL_BATCH):
        rows = range(start, min(start + EVAL_BATCH, len(part)))
        yield targets(backbone.features(part.batch(rows, device))).float().cpu()
