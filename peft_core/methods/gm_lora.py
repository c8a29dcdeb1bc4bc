"""GM-LoRA: LoRA with a random gradient mask; in every step r' of the r directions of each pair have a gradient.

"Enhancing Parameter Efficiency and Generalization in Large Models: A Regularized and Masked Low-Rank Adaptation
Approach" (RM-LoRA, 2024), section 4.3: RM-LoRA without its penalty.
The paper gives no r' for its experiments (ours: r / 2), says per epoch in its introduction and per step in its
algorithm (ours: per step), and prints index ranges that fit neither side (ours: whole rows of A, the same columns of
B). The mask acts before clipping. With AdamW the resting directions still move through momentum and decay, as the
text literally has it; `strict` holds them still. A ~ N(0, 0.02^2), B = 0, scale 1.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._rm_lora import Masked, attach_regularised
from peft_core.records import Backbone


class Config(BoostableConfig, Masked):
    """Options of GM-LoRA."""

    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A low-rank pair at every site."""
    return attach_regularised(backbone, config, generator, None, config)


METHOD = Method(
    id="gm_lora",
    title="GM-LoRA",
    family="low-rank",
    source="RM-LoRA (2024), section 4",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
)
