"""How much of a target's energy each pair captures, by Adam on ||ΔW - target||_F^2, all pairs in one loop.

Rank is not fit: a pair of higher rank whose values are tied can capture less than one of lower rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from peft_core.methods import keyed_generator
from peft_core.playground.fitting import FitPair, check_room
from peft_core.playground.pair import masks_of
from peft_core.playground.targets import Target
from peft_core.records import InputError

STEPS, FEWEST_STEPS = 600, 200
"""Of a target of up to 128 x 128 values, and of a large one."""
RATE, BETAS, EPSILON = 0.1, (0.9, 0.99), 1e-8
EVERY = 20
"""Steps from a point of the curves to the next one."""


@dataclass
class _Adam:
    """One parameter's moments (Kingma and Ba 2015), its rate falling to zero along half a cosine."""

    value: Tensor
    first: Tensor = field(init=False)
    second: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.second = torch.zeros_like(self.value), torch.zeros_like(self.value)

    def step(self, gradient: Tensor, number: int, rate: float) -> None:
        """number: from 1."""
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = (self.second / (1 - BETAS[1] ** number)).sqrt_().add_(EPSILON)
        self.value.addcdiv_(self.first, size, value=-rate / (1 - BETAS[0] ** number))


class _Group:
    """Pairs of one r and d, fitted as one batch. places: theirs among all pairs."""

    def __init__(self, places: Sequence[int], pairs: Sequence[FitPair], shape: tuple[int, int], seed: int) -> None:
        self.places, self.d, self.rank = places, pairs[0].d, pairs[0].rank
        self.masks_a = torch.stack([_masks(pair, (pair.rank, shape[1]), "A", seed) for pair in pairs])
        self.masks_b = torch.stack([_masks(pair, (shape[0], pair.rank), "B", seed) for pair in pairs])
        size = 0.5 * (self.d * self.rank) ** -0.25
        shapes = {"A": (self.rank, shape[1]), "B": (shape[0], self.rank)}
        a, b = (
            torch.randn(shapes[role], generator=keyed_generator(seed, "fit", role)).mul(size).repeat(len(pairs), 1, 1)
            for role in shapes
        )
        self.a, self.b = _Adam(a), _Adam(b)

    def kept(self) -> list[int]:
        """Values of each pair that some mask keeps."""
        return [int(a.any(0).sum() + b.any(0).sum()) for a, b in zip(self.masks_a, self.masks_b, strict=True)]

    def copies(self) -> tuple[Tensor, Tensor]:
        """left (n, out, d r) and right (n, d r, in)."""
        right = (self.a.value.unsqueeze(1) * self.masks_a).flatten(1, 2)
        left = (self.b.value.unsqueeze(1) * self.masks_b).transpose(1, 2).flatten(2, 3)
        return left, right

    def miss(self, target: Tensor) -> Tensor:
        """(n, out, in): ΔW - target."""
        left, right = self.copies()
        return torch.baddbmm(target.expand(len(left), -1, -1), left, right, beta=-1)

    def step(self, target: Tensor, number: int, rate: float) -> None:
        left, right = self.copies()
        miss = torch.baddbmm(target.expand(len(left), -1, -1), left, right, beta=-1)
        split = (self.d, self.rank)
        gradient_a = ((left.mT @ miss).unflatten(1, split) * self.masks_a).sum(1)
        gradient_b = ((miss @ right.mT).unflatten(2, split).transpose(1, 2) * self.masks_b).sum(1)
        self.a.step(gradient_a, number, rate)
        self.b.step(gradient_b, number, rate)


class Curves:
    """The fit of some pairs to a target.

    Raises:
        InputError: pairs that are too large together, or N:M masks along a side that M does not divide.
    """

    def __init__(self, target: Target, pairs: Sequence[FitPair], seed: int) -> None:
        check_room(pairs)
        self.target, self.pairs = target, list(pairs)
        shape = (target.matrix.shape[0], target.matrix.shape[1])
        alike: dict[tuple[int, int], list[int]] = {}
        for place, pair in enumerate(pairs):
            alike.setdefault((pair.rank, pair.d), []).append(place)
        self._groups = [_Group(places, [pairs[place] for place in places], shape, seed) for places in alike.values()]
        values = target.matrix.numel()
        self.steps = STEPS if values <= 2**14 else max(FEWEST_STEPS, round(STEPS * (2**14 / values) ** 0.5))

    def described(self) -> dict[str, Any]:
        """What is fitted, as JSON. best: share that any matrix of the pair's largest rank can hold; exact: whether
        the pair can reach it, since it is a plain one (truncated SVD)."""
        kept = self._ordered([group.kept() for group in self._groups])
        rows = [
            {
                "label": pair.label,
                "parameters": count,
                "largest_rank": min(pair.largest_rank, *self.target.matrix.shape),
                "best": self.target.at_rank(pair.largest_rank),
                "exact": pair.boost is None,
            }
            | pair.model_dump()
            for pair, count in zip(self.pairs, kept, strict=True)
        ]
        return {
            "target": self.target.title,
            "shape": list(self.target.matrix.shape),
            "steps": self.steps,
            "pairs": rows,
        }

    @torch.no_grad()
    def points(self) -> Iterator[tuple[int, list[float]]]:
        """(step, share of the energy captured by each pair) as they come; the last one is the result."""
        yield 0, self.captured()
        for number in range(1, self.steps + 1):
            rate = RATE * 0.5 * (1 + math.cos(math.pi * (number - 1) / self.steps))
            for group in self._groups:
                group.step(self.target.matrix, number, rate)
            if number % EVERY == 0 or number == self.steps:
                yield number, self.captured()

    @torch.no_grad()
    def captured(self) -> list[float]:
        """1 - ||ΔW - target||^2 / ||target||^2 of each pair now; below 0 where ΔW is worse than none."""
        energy = self.target.matrix.square().sum()
        shares = [(1 - group.miss(self.target.matrix).square().sum((1, 2)) / energy).tolist() for group in self._groups]
        return self._ordered(shares)

    def _ordered(self, found: Sequence[Sequence[Any]]) -> list[Any]:
        """One value a pair, in the order of the pairs."""
        ordered: list[Any] = [None] * len(self.pairs)
        for group, values in zip(self._groups, found, strict=True):
            for place, value in zip(group.places, values, strict=True):
                ordered[place] = value
        return ordered


def fit(target: Target, pairs: Sequence[FitPair], seed: int = 0) -> list[float]:
    """The share of the target's energy that each pair captures after the last step."""
    *_, (_, captured) = Curves(target, pairs, seed).points()
    return captured


def _masks(pair: FitPair, shape: tuple[int, int], role: str, seed: int) -> Tensor:
    try:
        return masks_of(shape, pair.boost, pair.d, "fit", role, seed)
    except InputError as error:
        raise InputError("pairs", pair.label, error.allowed) from None
