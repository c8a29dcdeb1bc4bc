"""RM-LoRA: LoRA with orthogonal directions of which a random part learns in every step.

"Enhancing Parameter Efficiency and Generalization in Large Models: A Regularized and Masked Low-Rank Adaptation
Approach" (RM-LoRA, 2024), sections 4.2 and 4.3.
The mask acts on the whole gradient, the penalty's included, before clipping (the paper does not say). What the paper
leaves open is as in `r_lora` and `gm_lora`: gamma 1e-3 as a mean over pairs, r' = r / 2, one draw a step, one batch a
step (its listing nests the batch inside the loop over pairs). A ~ N(0, 0.02^2), B = 0, scale 1.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._rm_lora import Masked, Orthogonal, attach_regularised
from peft_core.records import Backbone


class Config(BoostableConfig, Orthogonal, Masked):
    """Options of RM-LoRA."""

    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A low-rank pair at every site."""
    return attach_regularised(backbone, config, generator, config, config)


METHOD = Method(
    id="rm_lora",
    title="RM-LoRA",
    family="low-rank",
    source="RM-LoRA (2024), section 4",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
)
