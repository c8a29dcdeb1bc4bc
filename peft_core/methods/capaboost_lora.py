"""CapaBoost on LoRA: y = W x + (alpha / r) sum_i (B * m_Bi)(A * m_Ai) x, i = 1 ... d.

"Increasing Model Capacity for Free: A Simple Strategy for Parameter Efficient Fine-tuning" (ICLR 2024), eq. 3 and
section 4. One shared pair under d pairs of masks: rank d r from n (1 - s^d) parameters.
The branches are summed, neither averaged nor divided by the density.

Where paper and authors' code differ, or either from this:
- Masks follow the run's seed and the names of the tensors (their code draws all of them from one generator with seed 0,
  whatever the run's); masks of other origin cannot be read in. N:M groups lie along the contraction axis, where sparse
  tensor cores need them (theirs along r and out).
- A starts as LoRA's does (the paper: Gaussian; their code: U(+-1/sqrt(r)), `a_bound=rank`). B is 0 under every mask
  (their code zeroes the first branch's copy alone, so the others add noise in the first forward).
- The scale is 1 by default (their code: alpha / r = 1.5; the paper gives no alpha).
- The gradient is that of one dense parameter, so clipping counts it once (their code counts every copy, sqrt(d) more).
  Their accumulation sums branches again at every micro-batch, and their resume restores the first dense values.
- Their scripts adapt query and value, on DeBERTa too; the paper says "self-attention layers", but its 0.72% and 0.54%
  need all six maps (`sites=six`).
- The paper calls the kept share, 1 - s^d, the pruned one; its factor of FLOPs "s d" must read (1 - s) d.
- Stored are the values that some mask keeps, once (theirs: all d masked copies). Merging is W + the sum (the released
  merge multiplies module objects and cannot run).
- `masks=dropout` at evaluation: the weight times its density, unmasked (the paper does not say).
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

    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")
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
