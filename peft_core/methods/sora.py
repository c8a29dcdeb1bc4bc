"""SoRA: y = W x + (alpha / r) B (g * (A x)); the gate g is driven to exact zeros, and a zero direction can revive.

Ding et al. 2023, "Sparse Low-rank Adaptation of Pre-trained Language Models" (told here by its code). A as LoRA's,
B = 0, g ~ N(0, 1). After every optimizer step each gate passes the soft threshold sign(g) max(|g| - xi, 0), independent
of the learning rate. Gates have no weight decay. After training the directions with a zero gate are dropped.
Where paper and authors' code differ: the code's in-place lines zero every |g| < 2 xi and shrink the rest by xi, a dead
zone twice as wide (`sora_code`); it adds lambda_1 mean|g| to the loss (`gate_penalty`; 0 by default, as in the paper);
it may leave the head frozen, here the head trains and LayerNorms stay frozen; its scale is 16 / r, here alpha = r.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._low_rank import Start, attach_low_rank
from peft_core.methods._modules import LowRank
from peft_core.records import Backbone, SiteSelection


class Config(BoostableConfig):
    """Options of SoRA; `rank` is the largest, before pruning."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")
    sites: SiteSelection | None = Field("six", description="adapted maps; empty: the architecture's default")
    threshold: float = Field(3e-4, ge=0, le=10, description="xi: what a gate loses in every step")
    gate_penalty: float = Field(0.0, ge=0, le=1000, description="lambda_1: coefficient of mean |g| in the loss")
    sora_code: bool = Field(False, description="zero every |g| < 2 xi, as the authors' code does")


def soft_threshold(gate: Tensor, xi: float, dead_zone: float) -> Tensor:
    """sign(g) max(|g| - xi, 0), and 0 wherever |g| < dead_zone."""
    shrunk = gate.sign() * (gate.abs() - xi).clamp_min(0)
    return torch.where(gate.abs() < dead_zone, torch.zeros_like(gate), shrunk)


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A gated low-rank pair at every site."""
    attached = attach_low_rank(backbone, config, generator, config.boost, Start(gate_std=1.0))
    modules = [module for module in attached.modules.values() if isinstance(module, LowRank)]
    gates = [module.gate for module in modules if module.gate is not None]
    dead_zone = 2 * config.threshold if config.sora_code else config.threshold

    def shrink(step: int, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for gate in gates:
                gate.copy_(soft_threshold(gate, config.threshold, dead_zone))

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
