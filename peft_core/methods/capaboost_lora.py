"""CapaBoost on LoRA: y = W x + (alpha / r) sum_i (B * m_Bi)(A * m_Ai) x, i = 1 ... d.

"Increasing Model Capacity for Free: A Simple Strategy for Parameter Efficient Fine-tuning" (ICLR 2024), eq. 3 and
section 4. One shared pair under d pairs of masks: rank d r from n (1 - s^d) parameters.
The branches are summed, neither averaged nor divided by the density.
Where paper and authors' code differ: the masks follow the run's seed and the names of the tensors (their code draws
all of them from one generator with seed 0); A starts as LoRA's does (their code: U(+-1/sqrt(r)), `a_bound=rank`);
the gradient is that of one dense parameter, so clipping counts it once (their code counts every copy);
N:M groups lie along the contraction axis, where sparse tensor cores need them.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostedConfig, LowRankConfig, Method
from peft_core.methods._low_rank import Start, attach_low_rank
from peft_core.records import Backbone


class Config(LowRankConfig, BoostedConfig):
    """Options of CapaBoost on LoRA."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")
    a_bound: Literal["in", "rank"] = Field("in", description="A ~ U(+-1/sqrt(in)), or +-1/sqrt(r) as the authors' code")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A masked, tied low-rank pair at every site."""
    return attach_low_rank(backbone, config, generator, config.boost, Start(a_bound=config.a_bound))


METHOD = Method(
    id="capaboost_lora",
    title="CapaBoost-LoRA",
    family="low-rank",
    source="CapaBoost (ICLR 2024), eq. 3",
    Config=Config,
    attach=attach,
    mergeable=True,
)
