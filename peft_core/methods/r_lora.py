"""R-LoRA: LoRA with orthogonal directions; the loss gains gamma times the mean over pairs of
||A A^T - I||_F^2 + ||B^T B - I||_F^2.

"Enhancing Parameter Efficiency and Generalization in Large Models: A Regularized and Masked Low-Rank Adaptation
Approach" (RM-LoRA, 2024), section 4.2: RM-LoRA without its gradient mask.
At B = 0 the penalty's gradient on B is zero, and at its optimum ||B A||_F = sqrt(r), so a large gamma swamps the task.
The paper states neither gamma nor whether pairs are summed or averaged: `orthogonality` is ours (1e-3, a mean), and
every result records it. A ~ N(0, 0.02^2) (the paper: Gaussian, no deviation), B = 0, scale 1.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._rm_lora import Orthogonal, attach_regularised
from peft_core.records import Backbone


class Config(BoostableConfig, Orthogonal):
    """Options of R-LoRA."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A low-rank pair at every site."""
    return attach_regularised(backbone, config, generator, config, None)


METHOD = Method(
    id="r_lora",
    title="R-LoRA",
    family="low-rank",
    source="RM-LoRA (2024), section 4",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
)
