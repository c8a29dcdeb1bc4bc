"""SoRA: y = W x + (alpha / r) B (g * (A x)); the gate g is driven to exact zeros, and a zero direction can revive.

Ding et al. 2023, "Sparse Low-rank Adaptation of Pre-trained Language Models" (told here by its code). A as LoRA's,
B = 0, g ~ N(0, 1). After every optimizer step each gate passes the soft threshold sign(g) max(|g| - xi, 0). Gates have
no weight decay. After training the directions with a zero gate are dropped.
`levels` is the paper's schedule: dense first, then xi rises linearly, in equal shares of the run (the paper: 15 epochs
each), and the rate's curve starts again with every level (the code goes on with an exhausted scheduler, at rate 0).
Where paper and authors' code differ: the paper's threshold is rate times lambda, the code's a constant, as here; the
code's in-place lines zero every |g| < 2 xi and shrink the rest by xi, a dead zone twice as wide (`sora_code`); it adds
lambda_1 mean|g| to the loss (`gate_penalty`; 0 by default, as in the paper); it may leave the head frozen, here the
head trains and LayerNorms stay frozen; its scale is 16 / r, here alpha = r; its count takes 2 h off for a zero gate
whatever the map's shape and leaves gates out, here it is nnz(g) (in + out + 1).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._low_rank import Start, attach_low_rank
from peft_core.methods._modules import LowRank
from peft_core.records import Backbone, InputError, SiteSelection


class Config(BoostableConfig):
    """Options of SoRA; `rank` is the largest, before pruning."""

    anew: ClassVar[tuple[str, ...]] = (*BoostableConfig.anew, "threshold", "gate_penalty", "levels")
    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")
    sites: SiteSelection | None = Field("six", description="adapted maps; empty: the architecture's default")
    threshold: float = Field(3e-4, ge=0, le=10, description="xi: what a gate loses in every step")
    gate_penalty: float = Field(0.0, ge=0, le=1000, description="lambda_1: coefficient of mean |g| in the loss")
    levels: int = Field(
        0, ge=0, le=1000, description="train dense, then raise xi to `threshold` in so many levels; 0: it is constant"
    )
    sora_code: bool = Field(False, description="zero every |g| < 2 xi, as the authors' code does")


def soft_threshold(gate: Tensor, xi: float, dead_zone: float) -> Tensor:
    """sign(g) max(|g| - xi, 0), and 0 wherever |g| < dead_zone."""
    shrunk = gate.sign() * (gate.abs() - xi).clamp_min(0)
    return torch.where(gate.abs() < dead_zone, torch.zeros_like(gate), shrunk)


class Thresholds:
    """xi over the steps of a run: constant, or 0 at first and then up to its value in equal levels of equal length."""

    def __init__(self, config: Config) -> None:
        self.largest, self.levels = config.threshold, config.levels
        self.total = 1

    def start(self, total_steps: int) -> None:
        """Raises InputError where there are fewer steps than levels."""
        if total_steps <= self.levels:
            raise InputError("levels", self.levels, f"with the dense start they need more than {total_steps} steps")
        self.total = total_steps

    def at(self, step: int) -> float:
        """xi at a step, counted from 0."""
        if not self.levels:
            return self.largest
        return self.largest * (step * (self.levels + 1) // self.total) / self.levels


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A gated low-rank pair at every site."""
    attached = attach_low_rank(backbone, config, generator, config.boost, Start(gate_std=1.0))
    modules = [module for module in attached.modules.values() if isinstance(module, LowRank)]
    gates = [module.gate for module in modules if module.gate is not None]
    thresholds = Thresholds(config)
    attached.cycles = config.levels + 1

    def shrink(step: int, optimizer: torch.optim.Optimizer) -> None:
        xi = thresholds.at(step)
        with torch.no_grad():
            for gate in gates:
                gate.copy_(soft_threshold(gate, xi, 2 * xi if config.sora_code else xi))

    attached.on_start.append(thresholds.start)
    attached.after_step.append(shrink)
    attached.count_active = lambda: sum(module.active_parameters() for module in modules)
    if config.gate_penalty:
        attached.penalty = lambda: config.gate_penalty * torch.cat([*gates]).abs().mean()
    return attached


METHOD = Method(
    id="sora",
    title="SoRA",
    family="low-rank",
    source="Ding et al. 2023",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
)
