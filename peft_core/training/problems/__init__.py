"""Kinds of problems; `problem_of` finds the one a task poses."""

from __future__ import annotations

from peft_core.records import Problem as ProblemName
from peft_core.tasks import TaskInfo
from peft_core.training.problems._contract import (
    EVAL_BATCH,
    IGNORED,
    Encoded,
    Evaluation,
    Prediction,
    Problem,
    Scores,
    padded,
)
from peft_core.training.problems._labelled import Labelled, predict
from peft_core.training.problems._spans import Spans
from peft_core.training.problems._texts import Texts

__all__ = [
    "EVAL_BATCH",
    "IGNORED",
    "Encoded",
    "Evaluation",
    "Prediction",
    "Problem",
    "Scores",
    "padded",
    "predict",
    "problem_named",
    "problem_of",
]

_PROBLEMS: dict[ProblemName, Problem] = {
    "classification": Labelled(classes=True),
    "regression": Labelled(classes=False),
    "span": Spans(),
    "generation": Texts(),
}


def problem_of(info: TaskInfo) -> Problem:
    """How a task's rows are encoded, trained on and scored."""
    return problem_named(info.problem)


def problem_named(problem: ProblemName) -> Problem:
    """The same where there is no task, only its problem."""
    return _PROBLEMS[problem]
