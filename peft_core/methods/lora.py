"""LoRA: y = W x + (alpha / r) B A x with A ~ U(+-1/sqrt(in)) and B = 0.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3. No biases; r (in + out) parameters a site.
`boost.*` puts CapaBoost over it, which is then `capaboost_lora` bit for bit.
Where the comparison's papers write the factor as alpha alone, their code divides by r; so do we, and the default is 1.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._low_rank import attach_low_rank
from peft_core.records import Backbone


class Config(BoostableConfig):
    """Options of LoRA."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A low-rank pair at every site."""
    return attach_low_rank(backbone, config, generator, config.boost)


METHOD = Method(
    id="lora",
    title="LoRA",
    family="low-rank",
    source="Hu et al. 2022, eq. 3",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
    part="yardstick",
)
