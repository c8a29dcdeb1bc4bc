"""Random gradient masks: in every step only some directions of each low-rank pair learn (RM-LoRA, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from peft_core.methods._contract import Attached
from peft_core.methods._masks import hash_counters, stream
from peft_core.methods._modules import LowRank

_MOMENTS = ("exp_avg", "exp_avg_sq")


class GradientMask:
    """Keeps the gradient of `directions` rows of A and of the same columns of B, drawn anew for every pair and step.

    AdamW still moves the others through momentum and decay. With `strict` it does not: their values and moments are
    put back after the optimizer's step.
    """

    def __init__(self, pairs: Mapping[str, LowRank], seed: int, directions: int, strict: bool) -> None:
        self._pairs, self._seed, self._directions, self._strict = pairs, seed, directions, strict
        self._before: list[tuple[Tensor, Tensor]] = []

    def install(self, attached: Attached) -> None:
        attached.after_backward.append(self.mask)
        if self._strict:
            attached.before_update.append(self.remember)
            attached.after_step.append(self.restore)

    def chosen(self, site: str, rank: int, step: int) -> Tensor:
        """bool (rank,): the directions that learn in this step, uniform without replacement."""
        keys = hash_counters(stream(self._seed, site, "directions", step), torch.arange(rank))
        mask = torch.zeros(rank, dtype=torch.bool)
        mask[keys.argsort()[: self._directions]] = True
        return mask

    def mask(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Zeroes the gradients of the directions that rest."""
        for site, module in self._pairs.items():
            chosen = self.chosen(site, len(module.A), step).to(module.A.device)
            if module.A.grad is not None and module.B.grad is not None:
                module.A.grad *= chosen.unsqueeze(1)
                module.B.grad *= chosen

    def remember(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        self._before = [(live, live.detach().clone()) for live in self._resting(optimizer)]

    def restore(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        before = {id(live): old for live, old in self._before}
        with torch.no_grad():
            for site, module in self._pairs.items():
                rests = ~self.chosen(site, len(module.A), step).to(module.A.device)
                for live in self._tensors(module.A, optimizer):
                    live[rests] = before[id(live)][rests] if id(live) in before else torch.zeros_like(live[rests])
                for live in self._tensors(module.B, optimizer):
                    old = before.get(id(live), torch.zeros_like(live))
                    live[:, rests] = old[:, rests]
        self._before = []

    def _resting(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [
            live
            for module in self._pairs.values()
            for parameter in (module.A, module.B)
            for live in self._tensors(parameter, optimizer)
        ]

    @staticmethod
    def _tensors(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        """The parameter and its moments, as far as the optimizer has them already."""
        state = optimizer.state.get(parameter, {})
        return [parameter, *(state[name] for name in _MOMENTS if name in state)]
