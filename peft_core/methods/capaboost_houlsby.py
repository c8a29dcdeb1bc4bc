"""CapaBoost on Houlsby's adapter: A(u) = sum_i (U * m_Ui) phi((V * m_Vi) u + b_V) + b_U at both places, i = 1 ... d.

CapaBoost (ICLR 2024), eq. 3; the paper prints no result of it. Both places have masks of their own. Biases are never
masked; the output bias is added once (the authors' code: once a branch, `output_bias=each`), and the input bias learns
from all branches (their code: from the first). N:M masks work here (their code raises NotImplementedError). Masks and
storage otherwise differ as `capaboost_lora` tells.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from peft_core.methods._adapters import AdapterConfig, attach_adapters
from peft_core.methods._contract import Attached, BoostedConfig, Method
from peft_core.records import Backbone


class Config(AdapterConfig, BoostedConfig):
    """Options of CapaBoost on Houlsby's adapter."""

    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")
    output_bias: Literal["once", "each"] = Field(
        "once", description="added once, or once a branch as the authors' code"
    )


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """Two masked, tied bottleneck adapters in every layer."""
    copies = config.d if config.output_bias == "each" else 1
    return attach_adapters(backbone, config, generator, METHOD.id, "houlsby", "swish", config.boost, copies)


METHOD = Method(
    id="capaboost_houlsby",
    title="CapaBoost-HAdapter",
    family="adapter",
    source="CapaBoost (ICLR 2024), eq. 3",
    Config=Config,
    attach=attach,
    zero_init=False,
)
