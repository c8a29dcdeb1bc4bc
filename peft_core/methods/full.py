"""Full fine-tuning: every parameter of the backbone trains, Delta W = W - W_0.

The run trains a copy of its own; the shared backbone stays frozen and unchanged.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, Method, MethodConfig, WeightUpdate
from peft_core.methods._surgery import weight_at
from peft_core.records import Backbone


class Config(MethodConfig):
    """No options beyond the common ones."""

    learning_rate: float = Field(3e-4, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """Own copies of all parameters outside the head."""
    attached = Attached(backbone, generator.initial_seed())
    attached.override(backbone.body_parameters())
    attached.updates = lambda: _differences(attached)
    return attached


def _differences(attached: Attached) -> list[WeightUpdate]:
    """W - W_0 of the six maps of every layer; a vector or an embedding has no rank worth showing."""
    updates = []
    for site in attached.backbone.sites("six"):
        name = f"{site.module}.weight"
        delta = attached.overrides[name] - attached.backbone.model.get_parameter(name)
        bound = min(site.in_features, site.out_features)
        updates.append(WeightUpdate(site.name, site.layer, site.role, bound, delta=weight_at(site, delta)))
    return updates


METHOD = Method(
    id="full",
    title="Full fine-tuning",
    family="baseline",
    source="the ceiling of parameters: P + head",
    Config=Config,
    attach=attach,
    mergeable=True,
    part="ceiling",
)
