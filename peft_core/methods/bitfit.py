"""BitFit: every bias vector of the backbone trains, LayerNorm biases included, and nothing else.

Ben Zaken, Goldberg and Ravfogel 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models". Free at inference; 102,912 values on DeBERTaV3-base.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, Method, MethodConfig
from peft_core.records import Backbone, InputError


class Config(MethodConfig):
    """No options beyond the common ones."""

    learning_rate: float = Field(5e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """Own copies of all bias vectors outside the head.

    Raises:
        InputError: the architecture has no biases (T5).
    """
    names = backbone.bias_parameters()
    if not names:
        raise InputError("method", "bitfit", f"{backbone.id} has no bias vectors to train")
    attached = Attached(backbone, generator.initial_seed())
    attached.override(names)
    return attached


METHOD = Method(
    id="bitfit",
    title="BitFit",
    family="baseline",
    source="Ben Zaken et al. 2022",
    Config=Config,
    attach=attach,
    mergeable=True,
)
