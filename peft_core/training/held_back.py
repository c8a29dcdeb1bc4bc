"""Training for a choice: scored on validation rows that are neither trained on nor ever reported.

They are the task's own, where it has some, else training rows behind those that are trained on. Evaluation rows are not
even read, so no choice can depend on them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from peft_core.records import Backbone, ComparisonSpec, Emit, InputError, RunSpec
from peft_core.tasks import Rows, Task, TaskInfo
from peft_core.training.check import check
from peft_core.training.cohort import Notice, Stop, train_comparison
from peft_core.training.data import TaskData, chosen_tasks, encode_task

RATE = "learning_rate"


def held_back_counts(spec: ComparisonSpec, info: TaskInfo) -> tuple[int, int]:
    """How many rows are trained on, and how many the choice is made on (`eval_rows` of the spec).

    Where no training rows are asked for, those that the validation rows leave are used, at most the task's default.

    Raises:
        InputError: more than the task has, or fewer training rows than one batch.
    """
    assert spec.eval_rows is not None
    wanted = min(spec.eval_rows, info.validation_rows) if info.validation_rows else spec.eval_rows
    room = info.max_train_rows - (0 if info.validation_rows else wanted)
    train = spec.train_rows if spec.train_rows is not None else min(info.train_rows, room)
    if train > room or train < 1:
        allowed = f"{info.id} has {info.max_train_rows} training rows, and those for validation are taken from them"
        raise InputError("validation_rows", wanted, allowed)
    if spec.training.batch_size > train:
        raise InputError("training.batch_size", spec.training.batch_size, f"it must be at most train_rows ({train})")
    return train, wanted


def check_held_back(spec: ComparisonSpec) -> ComparisonSpec:
    """Refuses what cannot run; the same spec with its numbers of rows filled in.

    Raises:
        InputError: one sentence naming the field, the value and what is allowed.
    """
    counts = [held_back_counts(spec, task.info) for task, _ in chosen_tasks(spec)]
    rows = {"train_rows": min(train for train, _ in counts), "eval_rows": min(wanted for _, wanted in counts)}
    check(spec.model_copy(update=rows | {"eval_rows": None}))
    return spec.model_copy(update=rows)


def held_back_rows(task: Task, options: Mapping[str, Any], spec: ComparisonSpec) -> tuple[Rows, Rows]:
    """Training rows, and validation rows with other contents than any of them."""
    train, wanted = held_back_counts(spec, task.info)
    if task.info.validation_rows:
        own = task.validation(wanted, spec.data_seed, options)  # type: ignore[attr-defined]
        return task.rows("train", train, spec.data_seed, options), own
    rows = task.rows("train", train + wanted, spec.data_seed, options)
    trained = {_content(rows, place) for place in range(train)}
    behind = [place for place in range(train, len(rows)) if _content(rows, place) not in trained]
    if not behind:
        raise InputError("task", task.info.id, "its training rows repeat, so that none are left to choose on")
    return _taken(rows, range(train)), _taken(rows, behind)


def held_back_data(spec: ComparisonSpec, backbone: Backbone) -> tuple[TaskData, ...]:
    """The tasks' rows encoded, the validation rows in the place of the evaluation rows."""
    return tuple(
        encode_task(task, options, held_back_rows(task, options, spec), spec, backbone)
        for task, options in chosen_tasks(spec)
    )


def _content(rows: Rows, place: int) -> tuple[object, ...]:
    cells = (column[place] for column in rows.columns.values())
    return tuple(cell.tobytes() if isinstance(cell, np.ndarray) else cell for cell in cells)


def _taken(rows: Rows, places: Sequence[int]) -> Rows:
    columns = {
        name: column[list(places)] if isinstance(column, np.ndarray) else [column[place] for place in places]
        for name, column in rows.columns.items()
    }
    return Rows(columns, None if rows.labels is None else rows.labels[list(places)])


def train_on_held_back(
    spec: ComparisonSpec,
    runs: Sequence[RunSpec],
    *,
    folder: Path,
    emit: Emit,
    notice: Notice,
    stop: Stop,
    resume: bool = False,
) -> None:
    """Trains runs as `train_comparison` does, but their scores are those on validation rows; adapters are not kept.

    The learning rates of one method take turns, method after method, so that some runs are finished early. The rows are
    read and encoded once.
    """
    loaded: list[tuple[TaskData, ...]] = []

    def load(spec: ComparisonSpec, backbone: Backbone) -> tuple[TaskData, ...]:
        loaded.extend([] if loaded else [held_back_data(spec, backbone)])
        return loaded[0]

    for _, together in groupby(runs, key=_without_rate):
        group = list(together)
        train_comparison(
            spec,
            group,
            folder=folder,
            emit=emit,
            notice=notice,
            stop=stop,
            resume=resume,
            load=load,
        )
        for run in group:
            shutil.rmtree(folder / run.run, ignore_errors=True)


def _without_rate(run: RunSpec) -> tuple[object, ...]:
    others = {name: value for name, value in run.method.options.items() if name != RATE}
    return run.seed, run.method.id, tuple(sorted(others.items(), key=str))
