"""The rows of a comparison's tasks, read or generated, and encoded once for its backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from peft_core.records import Backbone, ComparisonSpec, InputError
from peft_core.tasks import Rows, Task, TaskInfo, get_tasks
from peft_core.training.problems import EVAL_BATCH, Encoded, Problem, problem_of
from peft_core.training.reading import Reading

LEAST_VALIDATION, MOST_VALIDATION = 50, 2000
ASKED = {"text": ("text", "text2", "question", "context"), "image": ("image",)}
"""Columns that a model reads, by what it can read; the others hold targets."""


@dataclass(frozen=True)
class TaskData:
    """Encoded training and evaluation rows of a task.

    validation: rows that are neither trained on nor reported, on which a run's best evaluation is chosen; None where
    none are asked for or the task has none. reading: how the training rows were read.
    """

    info: TaskInfo
    train: Encoded
    evaluation: Encoded
    validation: Encoded | None = None
    reading: Reading | None = None

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


def provenance(spec: ComparisonSpec) -> dict[str, Any]:
    """By task where its rows came from: files and their checksums, or a repository and its commit."""
    return {
        task.info.id: task.provenance(options) if hasattr(task, "provenance") else {"origin": task.info.origin}
        for task, options in chosen_tasks(spec)
    }


def _load_task(task: Task, options: Mapping[str, Any], spec: ComparisonSpec, backbone: Backbone) -> TaskData:
    counts = row_counts(spec, task.info)
    rows = [
        task.rows("train", counts[0], spec.data_seed, options),
        task.rows("eval", counts[1], spec.data_seed, options),
    ]
    if spec.training.selection == "best":
        rows += _apart(task, counts[1], spec.data_seed, options)
    return encode_task(task, options, rows, spec, backbone)


def encode_task(
    task: Task, options: Mapping[str, Any], rows: Sequence[Rows], spec: ComparisonSpec, backbone: Backbone
) -> TaskData:
    """Rows to train on, to evaluate on and perhaps to validate on, as a backbone takes them."""
    info, problem = task.info, problem_of(task.info)
    parts = [problem.encode(part, info, backbone, spec.training) for part in rows]
    if task.teacher is not None:
        with torch.inference_mode(), task.teacher(backbone, spec.data_seed, options) as targets:
            parts = [_taught(part, backbone, targets) for part in parts]
    settled = [problem.settle(parts[0], part)[1] for part in parts[1:]]
    told = problem.learned(parts[0], spec.training)
    reading = _reading(task, options, rows[0], backbone, spec.training.max_length, told)
    train, validation = problem.settle(parts[0], parts[0])[0], settled[1] if len(settled) > 1 else None
    return TaskData(info, train, settled[0], validation, reading)


def _reading(
    task: Task,
    options: Mapping[str, Any],
    rows: Rows,
    backbone: Backbone,
    max_length: int | None,
    told: Mapping[str, Any],
) -> Reading:
    named = task.column_names(options) if hasattr(task, "column_names") else {}
    roles = [role for role in ASKED[backbone.modality] if role in rows.columns]
    side = rows.columns["image"].shape[1] if roles == ["image"] else None
    columns = {role: named.get(role, role) for role in roles}
    return Reading(columns=columns, image_size=side, max_length=max_length, **told)


def _apart(task: Task, used: int, seed: int, options: Mapping[str, Any]) -> list[Rows]:
    """Rows to choose a run's best evaluation on: the task's own, else evaluation rows behind the reported."""
    own = task.info.validation_rows
    if own:
        return [task.validation(min(own, MOST_VALIDATION), seed, options)]  # type: ignore[attr-defined]
    more = min(used, MOST_VALIDATION, task.info.max_eval_rows - used)
    if more < LEAST_VALIDATION:
        return []
    rows = task.rows("eval", used + more, seed, options)
    columns = {name: column[used:] for name, column in rows.columns.items()}
    return [Rows(columns, None if rows.labels is None else rows.labels[used:])]


def _taught(part: Encoded, backbone: Backbone, targets: Any) -> Encoded:
    """The rows with targets computed by the task's teacher from the backbone itself."""
    return replace(part, labels=torch.cat(list(_targets(part, backbone, targets))))


def _targets(part: Encoded, backbone: Backbone, targets: Any) -> Iterator[Tensor]:
    device = next(backbone.model.parameters()).device
    for start in range(0, len(part), EVAL_BATCH):
        rows = range(start, min(start + EVAL_BATCH, len(part)))
        yield targets(backbone.features(part.batch(rows, device))).float().cpu()
