"""Several runs' products of thin matrices as one batched product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.methods._fold_slots import joined
from peft_core.methods._product import Masks


@dataclass(frozen=True)
class Pair:
    """What a module computes, as two products: left phi(right x + bias_in) scale + bias_out; phi left out: identity.

    right (r, in), left (out, r), bias_in (d r,), bias_out (out,); all differentiable in the module's parameters. With
    masks, those of right and of left, right and left stand for their d masked copies, (d r, in) and (out, d r). gate
    (r,): multiplies every copy's directions. Sizes are the same in all steps of a run.
    """

    right: Tensor
    left: Tensor
    bias_in: Tensor | None = None
    bias_out: Tensor | None = None
    nonlinearity: Callable[[Tensor], Tensor] | None = None
    scale: float = 1.0
    masks: tuple[Masks, Masks] | None = None
    gate: Tensor | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Pairs of equal kind can be multiplied together, whatever their size."""
        return self.nonlinearity, self.bias_in is None, self.bias_out is None

    @property
    def branches(self) -> int:
        return self.masks[0].branches if self.masks else 1

    @property
    def rank(self) -> int:
        """d r: directions of all copies."""
        return self.branches * len(self.right)

    @property
    def form(self) -> tuple[object, ...]:
        """Pairs of equal form have factors that are made in the same operations."""
        masked = None if self.masks is None else (self.masks[0].packed is None, self.branches)
        return len(self.right), masked, self.gate is None


def stacked(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """right (k, R, in) and left (k, out, R), with masks, gates and scales, padded with zeros to the largest R = d r."""
    widest = max(pair.rank for pair in pairs)
    right, left = [], []
    for _, alike in groupby(pairs, key=lambda pair: pair.form):
        one, other = _factors(list(alike))
        right.append(_wider(one, (0, 0, 0, widest - one.shape[1])))
        left.append(_wider(other, (0, widest - other.shape[2])))
    return joined(right), joined(left)


def _factors(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """The same of pairs of one form."""
    right, left = (torch.stack([getattr(pair, side) for pair in pairs]) for side in ("right", "left"))
    scales = {pair.scale for pair in pairs}
    if len(scales) > 1:
        left = left * left.new_tensor([pair.scale for pair in pairs]).view(-1, 1, 1)
    elif scales != {1.0}:
        left = left * pairs[0].scale
    gates = [pair.gate for pair in pairs if pair.gate is not None]
    if gates:
        right = right * torch.stack(gates).unsqueeze(2)
    masks = [pair.masks for pair in pairs if pair.masks is not None]
    if masks and masks[0][0].packed is not None:
        right, left = (_copies(value, [pair[side] for pair in masks]) for side, value in enumerate((right, left)))
        return right.flatten(1, 2), left.transpose(1, 2).flatten(2, 3)
    return right, left


def _copies(values: Tensor, masks: Sequence[Masks]) -> Tensor:
    """values (k, rows, cols) under everyone's masks, (k, d, rows, cols)."""
    packed = torch.stack([one.packed for one in masks if one.packed is not None])
    return Masks(packed, masks[0].cols).copies(values)


def multiplied(pairs: Sequence[Pair], x: Tensor) -> Tensor:
    """Every pair's answer to its own rows: x (k, n, in) to (k, n, out), of k pairs of one kind."""
    right, left = stacked(pairs)
    biases = [_wider(pair.bias_in, (0, right.shape[1] - pair.rank)) for pair in pairs if pair.bias_in is not None]
    inner = torch.baddbmm(torch.stack(biases).unsqueeze(1), x, right.mT) if biases else torch.bmm(x, right.mT)
    phi = pairs[0].nonlinearity
    inner = inner if phi is None else phi(inner)
    outer = [pair.bias_out for pair in pairs if pair.bias_out is not None]
    return torch.baddbmm(torch.stack(outer).unsqueeze(1), inner, left.mT) if outer else torch.bmm(inner, left.mT)


def _wider(value: Tensor, by: tuple[int, ...]) -> Tensor:
    return F.pad(value, by) if any(by) else value
