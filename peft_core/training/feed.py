"""Batches for the steps of a run, so that a step never waits for one where a device can work meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peft_core.training.problems import Encoded

Batch = tuple[dict[str, Tensor], Tensor]
"""Inputs, and labels."""


class Feed:
    """Batches on a device. The next one can be made while the device still works on this one.

    Rows are encoded once, before training; what is left is padding and the way to the device. A CPU computes while it
    works on a step, so there nothing is gained and nothing is made ahead.

    Args:
        ahead: whether `prepare` makes batches; None: on a CUDA device.
    """

    def __init__(self, device: torch.device, ahead: bool | None = None) -> None:
        self._device = device
        self._ahead = device.type == "cuda" if ahead is None else ahead
        self._next: tuple[Encoded, list[int], Batch] | None = None

    def prepare(self, rows: Encoded, part: Sequence[int]) -> None:
        """Makes the batch that will be asked for next."""
        if self._ahead:
            self._next = (rows, list(part), self._made(rows, part))

    def take(self, rows: Encoded, part: Sequence[int]) -> Batch:
        """The batch of these rows, made now if it was not prepared."""
        prepared, self._next = self._next, None
        if prepared is not None and prepared[0] is rows and prepared[1] == list(part):
            return prepared[2]
        return self._made(rows, part)

    def _made(self, rows: Encoded, part: Sequence[int]) -> Batch:
        return rows.batch(part, self._device), rows.labels_of(part, self._device)
