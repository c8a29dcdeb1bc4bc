"""Weight updates to be captured: of a chosen spectrum, or what a finished run has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from peft_core.methods import keyed_generator
from peft_core.records import InputError

TargetKind = Literal["flat", "decay", "gaussian"]
MOST_VALUES = 2**20
"""Of a target: 1024 x 1024 values."""


@dataclass(frozen=True)
class Target:
    """matrix: float32 (out, in), of root mean square 1. best: float64 (k,), the largest share of its energy
    (squared Frobenius norm) that a matrix of rank 1, 2, ... k = min(out, in) can hold (Eckart and Young 1936).
    """

    title: str
    matrix: Tensor
    best: Tensor

    def at_rank(self, rank: int) -> float:
        """The share that the best matrix of this rank holds."""
        return float(self.best[min(rank, len(self.best)) - 1])


def made_target(kind: TargetKind, size: int, rank: int, seed: int) -> Target:
    """A square target whose singular directions are random.

    Args:
        kind: flat (`rank` equal singular values), decay (the i-th is 1/i) or gaussian (independent normal values).
        rank: of the flat one, at most `size`.
    """
    generator = keyed_generator(seed, "target", kind)
    if kind == "gaussian":
        return _target("Gaussian, full rank", torch.randn(size, size, generator=generator, dtype=torch.float64))
    values = 1 / torch.arange(1, size + 1, dtype=torch.float64)
    if kind == "flat":
        values = (torch.arange(size) < rank).double()
    u, v = (_orthogonal(size, generator) for _ in "uv")
    title = f"flat spectrum, rank {min(rank, size)}" if kind == "flat" else "spectrum 1/i"
    return _target(title, (u * values) @ v.T)


def target_of_update(title: str, delta: Tensor) -> Target:
    """The update (out, in) of a map that a run has trained.

    Raises:
        InputError: it is zero, not finite or too large to be fitted here.
    """
    if delta.numel() > MOST_VALUES:
        raise InputError("site", title, f"its update must have at most {MOST_VALUES:,} values to be fitted here")
    if not bool(delta.isfinite().all()) or not bool(delta.any()):
        raise InputError("site", title, "its update is zero or not finite, so there is nothing to capture")
    return _target(title, delta.detach().double())


def _target(title: str, matrix: Tensor) -> Target:
    squares = torch.linalg.svdvals(matrix).square().cumsum(0)
    scaled = matrix * (matrix.numel() ** 0.5 / matrix.norm())
    return Target(title, scaled.float(), squares / squares[-1])


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
