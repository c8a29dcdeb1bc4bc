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


def multiplied(pairs: Sequence[Pair], x: Tensor, onto: Tensor | None = None) -> Tensor:
    """Every pair's answer to its own rows, padded with zeros to the largest R.

    Args:
        pairs: k of one kind.
        x: (k, n, in).
        onto: (k, n, out), to which the answers are added; only without an output bias.

    Returns:
        (k, n, out).
    """
    widest = max(len(pair.right) for pair in pairs)
    right = torch.stack([F.pad(pair.right, (0, 0, 0, widest - len(pair.right))) for pair in pairs])
    left = torch.stack([F.pad(_scaled(pair), (0, widest - len(pair.right))) for pair in pairs])
    biases = [F.pad(pair.bias_in, (0, widest - len(pair.right))) for pair in pairs if pair.bias_in is not None]
    inner = torch.baddbmm(torch.stack(biases).unsqueeze(1), x, right.mT) if biases else torch.bmm(x, right.mT)
    phi = pairs[0].nonlinearity
    inner = inner if phi is None else phi(inner)
    outer = [pair.bias_out for pair in pairs if pair.bias_out is not None]
    base = torch.stack(outer).unsqueeze(1) if outer else onto
    return torch.bmm(inner, left.mT) if base is None else torch.baddbmm(base, inner, left.mT)


def _scaled(pair: Pair) -> Tensor:
    return pair.left if pair.scale == 1 else pair.left * pair.scale
