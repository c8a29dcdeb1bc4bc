"""What a task is: where its rows come from, how they are scored.

A task is one file of this folder, named after its id, with a module-level ``TASK`` that fulfils `Task`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from peft_core.records import Problem

Split = Literal["train", "eval"]
TaskKind = Literal[
    "classification",
    "pair_classification",
    "image_classification",
    "regression",
    "pair_regression",
    "span_qa",
    "generation",
]
Modality = Literal["text", "image", "any"]
PROBLEMS: dict[TaskKind, Problem] = {
    "classification": "classification",
    "pair_classification": "classification",
    "image_classification": "classification",
    "regression": "regression",
    "pair_regression": "regression",
    "span_qa": "span",
    "generation": "generation",
}


@dataclass(frozen=True)
class Rows:
    """Rows of one split, column by column.

    columns: ``text`` (and ``text2`` for pairs): lists of str; or ``image``: uint8 array (rows, height, width, 3). A
        task of modality "any" gives both ``text`` and ``image``, and the model reads the one it can. Kind span_qa:
        ``question`` and ``context``, lists of str, and ``answers``, for every row a tuple of (text, index of its first
        character in the context), empty where the context holds no answer; training uses the first one. Kind
        generation: ``text``, the sources, and ``target``, for every row a tuple of references; training uses the first.
    labels: int64 (rows,) class indices, float32 (rows,) or (rows, outputs) regression targets, or None where the
        columns hold the targets or the task computes them from the model (`Task.teacher`).
    """

    columns: Mapping[str, Any]
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class TaskInfo:
    """What lists, forms and results say of a task."""

    id: str
    title: str
    description: str
    kind: TaskKind
    modality: Modality
    metrics: tuple[str, ...]
    """Names from peft_core.metrics; the first one is the score that curves and tables show."""
    labels: tuple[str, ...] | None
    """Names of the classes in index order; None where there are none."""
    outputs: int
    """Width of the head: number of classes, or of regression targets; 2 for span_qa, 0 for generation."""
    train_rows: int
    eval_rows: int
    """Rows used when nothing is asked for."""
    max_train_rows: int
    max_eval_rows: int
    validation_rows: int = 0
    """Rows to select on that are neither trained on nor reported (`validation` of the task); 0: there are none."""
    origin: str = "embedded"
    license: str = "Apache-2.0"
    protocol: str = "train and eval rows are disjoint by construction; the score is that of the last step"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Option name to default (rank_probe: spectrum, rank, ...)."""

    @property
    def problem(self) -> Problem:
        """What a model's head is for."""
        return PROBLEMS[self.kind]


class Task(Protocol):
    @property
    def info(self) -> TaskInfo: ...

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises an InputError for an option that the task does not have, or a value that it does not take."""
        ...

    def rows(self, split: Split, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        """The first `count` rows of a split; the same seed gives the same rows, and fewer are a prefix of more."""
        ...

    @property
    def teacher(self) -> Callable[..., Any] | None:
        """None, or ``teacher(backbone, seed, options)``: a context manager under which the backbone computes the
        targets. It yields ``targets(features) -> (rows, outputs)``, where features (rows, hidden) are those that the
        backbone gives under it. The training code standardises the targets with the mean and deviation of the training
        rows."""
        ...
