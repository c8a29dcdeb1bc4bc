"""Several runs' products of thin matrices as one batched product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """What a module computes, as two products: left phi(right x + bias_in) scale + bias_out; phi left out: identity.

    right (R, in), left (out, R), bias_in (R,), bias_out (out,); all differentiable in the module's parameters. R is the
    same in all steps of a run.
    """

    right: Tensor
    left: Tensor
    bias_in: Tensor | None = None
    bias_out: Tensor | None = None
    nonlinearity: Callable[[Tensor], Tensor] | None = None
    scale: float = 1.0

    @property
    def kind(self) -> tuple[object, ...]:
        """Pairs of equal kind can be multiplied together, whatever their R."""
        return self.nonlinearity, self.bias_in is None, self.bias_out is None


def stacked(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """right (k, R, in) and left (k, out, R), scales included, padded with zeros to the largest R."""
    widest = max(len(pair.right) for pair in pairs)
    right = torch.stack([_wider(pair.right, (0, 0, 0, widest - len(pair.right))) for pair in pairs])
    left = torch.stack([_wider(pair.left, (0, widest - len(pair.right))) for pair in pairs])
    scales = {pair.scale for pair in pairs}
    if scales == {1.0}:
        return right, left
    return right, left * left.new_tensor([pair.scale for pair in pairs]).view(-1, 1, 1)


def multiplied(pairs: Sequence[Pair], x: Tensor) -> Tensor:
    """Every pair's answer to its own rows: x (k, n, in) to (k, n, out), of k pairs of one kind."""
    right, left = stacked(pairs)
    biases = [_wider(pair.bias_in, (0, right.shape[1] - len(pair.right))) for pair in pairs if pair.bias_in is not None]
    inner = torch.baddbmm(torch.stack(biases).unsqueeze(1), x, right.mT) if biases else torch.bmm(x, right.mT)
    phi = pairs[0].nonlinearity
    inner = inner if phi is None else phi(inner)
    outer = [pair.bias_out for pair in pairs if pair.bias_out is not None]
    return torch.baddbmm(torch.stack(outer).unsqueeze(1), inner, left.mT) if outer else torch.bmm(inner, left.mT)


def _wider(value: Tensor, by: tuple[int, ...]) -> Tensor:
    return F.pad(value, by) if any(by) else value
