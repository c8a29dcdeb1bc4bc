"""BitFit: every bias vector of the backbone trains, LayerNorm biases included, and nothing else.

Ben Zaken, Goldberg and Ravfogel 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models". Free at inference; 102,912 values on DeBERTaV3-base.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, Method, MethodConfig, WeightUpdate
from peft_core.records import Backbone, InputError


class Config(MethodConfig):
    """No options beyond the common ones."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of this method")


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
    attached.updates = lambda: _differences(attached)
    return attached


def _differences(attached: Attached) -> list[WeightUpdate]:
    """b - b_0 of every map that has a bias, as an (out, 1) matrix: of [W b] it is the only column that changes."""
    updates = []
    for site in attached.backbone.sites("six"):
        name = f"{site.module}.bias"
        if name in attached.overrides:
            change = attached.overrides[name] - attached.backbone.model.get_parameter(name)
            part = change[site.offset : site.offset + site.out_features].unsqueeze(1)
            updates.append(WeightUpdate(site.name, site.layer, site.role, 1, delta=part, kind="bias"))
    return updates


METHOD = Method(
    id="bitfit",
    title="BitFit",
    family="baseline",
    source="Ben Zaken et al. 2022",
    Config=Config,
    attach=attach,
    mergeable=True,
)
