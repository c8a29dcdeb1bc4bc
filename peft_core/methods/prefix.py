"""Prefix-tuning: l trained keys and values in front of those of every attention, always visible, without positions.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation". While training they are made from an
embedding: l x h -> h x 512 -> tanh -> 512 x (L 2 h), read as P_K and P_V of each layer, initialised as torch does; no
dropout. After training they are evaluated once and stored flat. The papers count the flat values, 2 l h L (`weights`,
stored); what trains is far more, 9.9M values on RoBERTa-base at l = 64 (`trainable`). T5 has three sets with an
embedding each: encoder self-attention, decoder self-attention, cross-attention.
`reparametrize=false` trains the flat values, from N(0, 0.02^2). FLOPs: 4 l h a token and attention; making the prefix
is once a step and not counted. The rank shown is that of P_V P_K, the linear map that is left without the softmax.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, Method, MethodConfig
from peft_core.methods._prefix import attach_flat, attach_made
from peft_core.records import Backbone


class Config(MethodConfig):
    """Options of prefix-tuning."""

    free: ClassVar[str | None] = "length"
    learning_rate: float = Field(
        9e-4, gt=0, le=10, description="peak learning rate; without reparametrize ten times as much trains better"
    )
    length: int = Field(16, ge=1, le=4096, description="extra keys and values l of every attention")
    reparametrize: bool = Field(True, description="train an embedding and two maps that make them; stored flat")
    bottleneck: int = Field(512, ge=1, le=65536, description="width between the two maps, with reparametrize")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A prefix in front of every attention."""
    if config.reparametrize:
        return attach_made(backbone, config.length, config.bottleneck, generator, METHOD.id)
    return attach_flat(backbone, config.length, generator, METHOD.id)


METHOD = Method(
    id="prefix",
    title="Prefix-tuning",
    family="prefix",
    source="Li and Liang 2021",
    Config=Config,
    attach=attach,
    zero_init=False,
)
