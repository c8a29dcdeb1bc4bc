"""Pfeiffer's adapter: one bottleneck a layer, after the feed-forward block; A(u) = U phi(V u + b_V) + b_U.

Pfeiffer et al. 2021, "AdapterFusion". Post-LN: LN(z + A(LN(z + x)) + x) with z the block's output and x its residual
input; pre-LN: z + x + A(z + x). V, U ~ N(0, 0.02^2) with ReLU; on T5 N(0, 0.01^2) with the tanh form of GELU.
L (2 bn h + bn + h) parameters; T5 has 2 L places.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._adapters import AdapterConfig, attach_adapters
from peft_core.methods._contract import Attached, Method
from peft_core.records import Backbone


class Config(AdapterConfig):
    """Options of Pfeiffer's adapter."""

    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A bottleneck adapter after every feed-forward block."""
    return attach_adapters(backbone, config, generator, METHOD.id, "pfeiffer", backbone.adapter_defaults.nonlinearity)


METHOD = Method(
    id="adapter_pfeiffer",
    title="Pfeiffer adapter",
    family="adapter",
    source="Pfeiffer et al. 2021",
    Config=Config,
    attach=attach,
    zero_init=False,
)
