"""CapaBoost as a plain implementation trains it, to be measured against: d modules of their own for every map.

Each module has weights, gradients and optimizer states of its own. Its masks are multiplied into copies of its weights
in every pass; the copies' gradients are summed by hand, so that all stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.commands._bench import Step
from peft_core.methods import Attached
from peft_core.records import Backbone
from peft_core.training.optimizer import make_optimizer


class Copies(nn.Module):
    """d low-rank modules A_i (r, in), B_i (out, r) with masks as floats, equal at first.

    Args:
        a, b: first values. masks_a, masks_b: (d, r, in) and (d, out, r).
    """

    def __init__(self, a: Tensor, b: Tensor, masks_a: Tensor, masks_b: Tensor, scale: float) -> None:
        super().__init__()
        self.A = nn.ParameterList(a.detach().clone() for _ in masks_a)
        self.B = nn.ParameterList(b.detach().clone() for _ in masks_b)
        self.masks_a, self.masks_b = masks_a.to(a.dtype), masks_b.to(b.dtype)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) to the update's output (..., out)."""
        parts = zip(self.A, self.B, self.masks_a, self.masks_b, strict=True)
        found = [F.linear(F.linear(x, a * mask_a), b * mask_b) for a, b, mask_a, mask_b in parts]
        return torch.stack(found).sum(0) * self.scale

    @torch.no_grad()
    def tie(self) -> None:
        """Gives every copy the sum of the gradients of all."""
        for copies in (self.A, self.B):
            total = torch.stack([copy.grad for copy in copies if copy.grad is not None]).sum(0)
            for copy in copies:
                copy.grad = total.clone()


def plain_copies_step(
    backbone: Backbone, like: Attached, head: Mapping[str, Tensor], batch: dict[str, Tensor], labels: Tensor
) -> tuple[Step, dict[str, nn.Parameter], int]:
    """A step of the plain implementation, its parameters without the head, and the bytes of its masks.

    Args:
        like: an attachment with masked pairs at its sites, whose first values and masks are taken.
        head: first values of the head.
    """
    pairs: dict[str, Copies] = {}
    for site, pair in like.at_sites:
        source: Any = pair
        pairs[site.module] = Copies(source.A, source.B, source.mask_A.masks, source.mask_B.masks, source.scale)
    own = {f"{path}.{name}": value for path, pair in pairs.items() for name, value in pair.named_parameters()}
    heads = Attached(backbone, 0)
    heads.train_head(head)
    optimizer = make_optimizer(own | heads.trainable(), 0.01)

    def step() -> None:
        with ExitStack() as undo:
            undo.enter_context(heads.active())
            for path, pair in pairs.items():
                hook = backbone.model.get_submodule(path).register_forward_hook(
                    lambda _, args, output, pair=pair: output + pair(args[0])
                )
                undo.callback(hook.remove)
            F.cross_entropy(backbone.logits(batch), labels).backward()
        for pair in pairs.values():
            pair.tie()
        optimizer.step()
        optimizer.zero_grad()

    return step, own, sum(pair.masks_a.nbytes + pair.masks_b.nbytes for pair in pairs.values())
