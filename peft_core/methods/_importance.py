"""Smoothed sensitivity and its uncertainty, by which AdaLoRA ranks the directions of all adapted maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


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
