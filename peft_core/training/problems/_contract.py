"""What training asks of a kind of problem: how its rows become inputs, what its loss and its scores are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from peft_core.methods import Attached
from peft_core.metrics.resampling import Outcomes
from peft_core.records import Backbone, TrainingConfig
from peft_core.tasks import Rows, TaskInfo
from peft_core.training.reading import Reading

EVAL_BATCH = 64
IGNORED = -100
"""Label of a position that takes no part in the loss."""
Scores = dict[str, float | None]


class Evaluation(NamedTuple):
    """Scores by metric name, the mean loss, and each task's outcomes by row, as its first metric asks."""

    scores: Scores
    loss: float
    outcomes: tuple[Outcomes, ...] | None = None


@dataclass(frozen=True)
class Prediction:
    """What a trained model answers to one row.

    answer: the most probable label, a number (several: a tuple), a part of the context ("" for none), or text.
    confidence: probability by label, for classes. score: of a part of a context, its start's and end's logits summed.
    standardised: the number is in deviations from the mean of training targets that are not known here.
    """

    answer: str | float | tuple[float, ...]
    confidence: Mapping[str, float] | None = None
    score: float | None = None
    standardised: bool = False

    @property
    def finite(self) -> bool:
        """Whether its numbers are."""
        numbers = [*(self.confidence or {}).values(), *([] if self.score is None else [self.score])]
        if not isinstance(self.answer, str):
            numbers += self.answer if isinstance(self.answer, tuple) else [self.answer]
        return all(map(math.isfinite, numbers))

    def as_dict(self) -> dict[str, Any]:
        """For strict JSON: what is not there is left out."""
        entries = {"answer": self.answer, "confidence": self.confidence, "score": self.score}
        found = {name: value for name, value in entries.items() if value is not None}
        return found | ({"standardised": True} if self.standardised else {})


@dataclass(frozen=True)
class Encoded:
    """Rows as a model takes them.

    tokens: one list of fields per row (``input_ids`` and, where the model takes them, ``token_type_ids`` and
    ``decoder_input_ids``), or None. images: float32 (rows, channels, height, width), or None.
    labels: int64 (rows,), float32 (rows, outputs), int64 (rows, 2) first and last token of an answer, or one list of
    token ids per row.
    """

    tokens: Mapping[str, list[list[int]]] | None
    images: Tensor | None
    labels: Tensor | list[list[int]]
    pad: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.images) if self.images is not None else len(self.tokens["input_ids"])  # type: ignore[index]

    def lengths(self) -> list[int]:
        """Tokens in each row; equal for images."""
        return [len(row) for row in self.tokens["input_ids"]] if self.tokens else [1] * len(self)

    def batch(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Model inputs for these rows, every field padded to its longest row, on the device."""
        if self.images is not None:
            return {"pixel_values": moved(self.images[list(rows)], device)}
        assert self.tokens is not None
        batch = {name: padded([values[row] for row in rows], self.pad[name]) for name, values in self.tokens.items()}
        lengths = torch.tensor([len(self.tokens["input_ids"][row]) for row in rows])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths.unsqueeze(1)).long()
        return {name: moved(tensor, device) for name, tensor in batch.items()}

    def weight(self, rows: Sequence[int]) -> int:
        """How many predictions the mean loss of these rows is over: rows, or tokens of their targets."""
        if isinstance(self.labels, list):
            return sum(label != IGNORED for row in rows for label in self.labels[row])
        return len(rows)

    def labels_of(self, rows: Sequence[int], device: torch.device) -> Tensor:
        if isinstance(self.labels, list):
            return moved(padded([self.labels[row] for row in rows], IGNORED), device)
        return moved(self.labels[list(rows)], device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device. To a CUDA device it goes from pinned memory, and nothing waits for it to arrive."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """int64 (rows, longest row), filled up on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


class Problem(Protocol):
    """A kind of problem. `TaskInfo.problem` names it; `problems.problem_of` finds it."""

    def encode(self, rows: Rows, info: TaskInfo, backbone: Backbone, training: TrainingConfig) -> Encoded:
        """Rows of a task as inputs and labels."""
        ...

    def learned(self, train: Encoded, training: TrainingConfig) -> dict[str, Any]:
        """Fields of the `Reading` that the training rows decide; before `settle`."""
        ...

    def asked(self, rows: Rows, backbone: Backbone, reading: Reading) -> Encoded:
        """Rows without targets as inputs, cut as `encode` cuts them."""
        ...

    def answers(
        self, attached: Attached, asked: Encoded, labels: Sequence[str] | None, reading: Reading
    ) -> list[Prediction]:
        """What the model answers to them, in their order. labels: names of the classes; None: their numbers."""
        ...

    def settle(self, train: Encoded, evaluation: Encoded) -> tuple[Encoded, Encoded]:
        """Both splits, once both are known: what the evaluation rows take over from the training rows."""
        ...

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss, computed in float32."""
        ...

    def outputs(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits as (n, outputs), one line for everything that is predicted; for losses between two passes."""
        ...

    def evaluate(self, attached: Attached, rows: Encoded, info: TaskInfo, training: TrainingConfig) -> Evaluation:
        """Scores, loss and outcomes."""
        ...

    def baseline(self, info: TaskInfo, train: Encoded, evaluation: Encoded) -> float | None:
        """The first metric's value of a model that ignores its input; None where there is no such figure."""
        ...
