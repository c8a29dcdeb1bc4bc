"""Smoothed sensitivity and its uncertainty: AdaLoRA ranks directions by them, IncreLoRA whole maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from peft_core.methods._kernels import fastest_sum

TILE = 2**18
"""Values of a weight update and of its gradient that are computed at a time."""


class Importance(nn.Module):
    """Running sensitivity I and uncertainty U of some tensors, kept as buffers so that a checkpoint holds them.

    I <- beta_1 I + (1 - beta_1) s and U <- beta_2 U + (1 - beta_2) |s - I| (with the new I), s = |p g|
    (AdaLoRA, eqs. 8 to 10, in the order of its code).
    """

    def __init__(self, shapes: Mapping[str, torch.Size], beta1: float, beta2: float) -> None:
        super().__init__()
        self.beta1, self.beta2 = beta1, beta2
        for name, shape in shapes.items():
            self.register_buffer(f"sensitivity_{name}", torch.zeros(shape))
            self.register_buffer(f"uncertainty_{name}", torch.zeros(shape))

    def update(self, name: str, sensitivity: Tensor) -> None:
        """Takes in s of a tensor at one step."""
        smooth, uncertain = self.get_buffer(f"sensitivity_{name}"), self.get_buffer(f"uncertainty_{name}")
        smooth.mul_(self.beta1).add_(sensitivity, alpha=1 - self.beta1)
        uncertain.mul_(self.beta2).add_((sensitivity - smooth).abs(), alpha=1 - self.beta2)

    def score(self, name: str) -> Tensor:
        """I U, of the tensor's shape."""
        return self.get_buffer(f"sensitivity_{name}") * self.get_buffer(f"uncertainty_{name}")


def below_threshold(scores: Sequence[Tensor], drop: int) -> list[Tensor]:
    """bool masks of the scores at or below the `drop`-th smallest of all; none where drop is 0."""
    if drop <= 0:
        return [torch.zeros_like(score, dtype=torch.bool) for score in scores]
    everything = torch.cat([score.flatten() for score in scores])
    threshold = everything.kthvalue(min(drop, len(everything))).values
    return [score <= threshold for score in scores]


def absolute_product_sum(left: Tensor, right: Tensor, uses: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Sum over all values of |Delta W * G| with Delta W = left right and G = sum over uses of delta^T x.

    Neither matrix is ever whole. On CUDA a kernel does it where that measures faster, else `tiled_sum`. Costs
    2 (tokens + R) in out FLOPs, as much as a forward through the frozen map, and the inputs and output gradients of all
    uses, (in + out) floats a token.

    Args:
        left: (out, R).
        right: (R, in).
        uses: x (..., in) that went into the map and delta (..., out), the loss's gradient by what came out.
    """
    return fastest_sum(left, right, uses, tiled_sum)


def tiled_sum(left: Tensor, right: Tensor, uses: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """`absolute_product_sum` in row tiles of `TILE` values."""
    flat = [(x.flatten(0, -2).float(), delta.flatten(0, -2).float()) for x, delta in uses]
    total = torch.zeros((), device=left.device)
    rows = max(1, TILE // right.shape[1])
    for start in range(0, len(left), rows) if flat else ():
        tile = slice(start, start + rows)
        gradient = torch.stack([delta[:, tile].T @ x for x, delta in flat]).sum(0)
        total += (left[tile] @ right * gradient).abs().sum()
    return total
