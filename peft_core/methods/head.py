"""The task head alone: the floor of every comparison. Nothing goes into the backbone."""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, Method, MethodConfig
from peft_core.records import Backbone, InputError


class Config(MethodConfig):
    """No options beyond the common ones."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """An attachment without modules; the head itself trains in every method.

    Raises:
        InputError: the architecture has no task head (T5 answers in words).
    """
    if not backbone.head_parameters():
        raise InputError("method", "head", f"{backbone.id} has no task head to train")
    return Attached(backbone, generator.initial_seed())


METHOD = Method(
    id="head",
    title="Head only",
    family="baseline",
    source="the floor of every comparison: a linear probe with the architecture's own head",
    Config=Config,
    attach=attach,
    part="floor",
)
