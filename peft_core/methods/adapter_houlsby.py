"""Houlsby's adapter: two bottlenecks a layer, after attention and after the feed-forward block; z + A(z) in both.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2. A(u) = U phi(V u + b_V) + b_U, swish;
V, U ~ N(0, 0.02^2) as in adapter-transformers (the original: truncated N(0, 0.01^2); AdaLoRA's comparison: the
framework's default). The original also trains the
LayerNorms; here they stay frozen. 2 L (2 bn h + bn + h) parameters. An encoder-decoder's cross-attention has none.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._adapters import AdapterConfig, attach_adapters
from peft_core.methods._contract import Attached, Method
from peft_core.records import Backbone


class Config(AdapterConfig):
    """Options of Houlsby's adapter."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """Two bottleneck adapters in every layer."""
    return attach_adapters(backbone, config, generator, METHOD.id, "houlsby", "swish")


METHOD = Method(
    id="adapter_houlsby",
    title="Houlsby adapter",
    family="adapter",
    source="Houlsby et al. 2019",
    Config=Config,
    attach=attach,
    zero_init=False,
)
