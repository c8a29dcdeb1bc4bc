"""The task head alone: the floor of every comparison. Nothing goes into the backbone."""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, Method, MethodConfig
from peft_core.records import Backbone


class Config(MethodConfig):
    """No options beyond the common ones."""

    learning_rate: float = Field(5e-3, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """An attachment without modules; the head itself trains in every method."""
    return Attached(backbone, generator.initial_seed())


METHOD = Method(
    id="head",
    title="Head only",
    family="baseline",
    source="the floor of every comparison: a linear probe with the architecture's own head",
    Config=Config,
    attach=attach,
)
