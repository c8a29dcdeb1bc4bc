"""A pair under its masks: Gaussian factors, and the masks that training would draw from the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peft_core.methods import BoostConfig, keyed_generator, transform
from peft_core.playground.sketch import Sketch


@dataclass(frozen=True)
class Pair:
    """a (r, in) and b (out, r) in float64; masks_a bool (d, r, in) and masks_b bool (d, out, r)."""

    a: Tensor
    b: Tensor
    masks_a: Tensor
    masks_b: Tensor

    @property
    def right(self) -> Tensor:
        """(d r, in): the masked copies of A, one below another."""
        return (self.a * self.masks_a).flatten(0, 1)

    @property
    def left(self) -> Tensor:
        """(out, d r): the masked copies of B, one beside another. left @ right is ΔW."""
        return (self.b * self.masks_b).transpose(0, 1).flatten(1, 2)

    def empty(self) -> int:
        """Of the d r directions those whose row of A or column of B a mask leaves without any value."""
        return int((~(self.masks_a.any(2) & self.masks_b.any(1))).sum())


def draw_pair(sketch: Sketch, number: int = 0) -> Pair:
    """A draw of the sketch; equal for equal seeds, and the same one that `theorem` tries under this number."""
    return pair_at(sketch, f"draw.{number}")


def pair_at(sketch: Sketch, site: str) -> Pair:
    """The pair at a site of this name: its masks are those that training draws there from the same seed."""
    shapes = {"A": (sketch.rank, sketch.in_features), "B": (sketch.out_features, sketch.rank)}
    a, b = (_gaussian(shape, sketch.seed, site, role) for role, shape in shapes.items())
    masks = {
        role: masks_of(shape, sketch.boost if role in sketch.masked else None, sketch.d, site, role, sketch.seed)
        for role, shape in shapes.items()
    }
    return Pair(a, b, masks["A"], masks["B"])


def masks_of(shape: tuple[int, int], boost: BoostConfig | None, copies: int, site: str, role: str, seed: int) -> Tensor:
    """bool (copies, rows, cols): the masks that training draws for a tensor; all true without any.

    Raises:
        InputError: N:M masks along an axis that M does not divide.
    """
    if boost is None:
        return torch.ones(1, 1, 1, dtype=torch.bool).expand(copies, *shape)
    drawn: Tensor = transform(shape, boost, site, role, seed).masks  # type: ignore[union-attr,assignment]
    return drawn


def _gaussian(shape: tuple[int, int], seed: int, site: str, role: str) -> Tensor:
    return torch.randn(shape, generator=keyed_generator(seed, site, role), dtype=torch.float64)
