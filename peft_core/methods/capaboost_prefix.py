"""CapaBoost on prefix-tuning, our reading: d masked copies (P_K * m_Ki, P_V * m_Vi) as d l rows under one softmax.

CapaBoost (ICLR 2024), eq. 5, claims prefixes through a common form f(x B) A, without code and without a result. Of its
readings this one is prefix-tuning at d = 1; the literal one, d softmax branches of their own beside the ordinary
attention, is not, and a sum of d whole attentions would repeat the base attention.
The masks lie on the flat values, which train without reparametrisation, from N(0, 0.02^2); 2 l h L (1 - s^d) of them
count. N:M groups lie along the contracted axis: features for P_K, rows for P_V.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, BoostedConfig, Method, MethodConfig
from peft_core.methods._prefix import attach_flat
from peft_core.records import Backbone


class Config(MethodConfig, BoostedConfig):
    """Options of CapaBoost on prefix-tuning."""

    free: ClassVar[str | None] = "length"
    learning_rate: float = Field(3e-2, gt=0, le=10, description="peak learning rate of this method")
    length: int = Field(16, ge=1, le=4096, description="shared keys and values l of every attention")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A masked, tied prefix in front of every attention."""
    return attach_flat(backbone, config.length, generator, METHOD.id, config.boost)


METHOD = Method(
    id="capaboost_prefix",
    title="CapaBoost-Prefix (ours)",
    family="prefix",
    source="CapaBoost (ICLR 2024), eq. 5, our reading",
    Config=Config,
    attach=attach,
    zero_init=False,
)
