"""Attaching bottleneck adapters to places: shared by Pfeiffer's and Houlsby's."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from peft_core.methods._contract import Attached, MethodConfig, WeightUpdate
from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import Bottleneck, keyed_generator
from peft_core.records import AdapterPlace, Backbone, InputError

Nonlinearity = Literal["relu", "gelu", "gelu_new", "swish", "tanh"]


class AdapterConfig(MethodConfig):
    """Options of bottleneck adapters."""

    free: ClassVar[str | None] = "bottleneck"
    bottleneck: int = Field(16, ge=1, le=65536, description="width bn of the adapter")
    nonlinearity: Nonlinearity | None = Field(None, description="empty: the method's own on this architecture")


def attach_adapters(
    backbone: Backbone,
    config: AdapterConfig,
    generator: torch.Generator,
    method: str,
    kind: Literal["pfeiffer", "houlsby"],
    nonlinearity: str,
    boost: BoostConfig | None = None,
    bias_copies: int = 1,
) -> Attached:
    """A bottleneck adapter at every place: V, U ~ N(0, std^2) with the architecture's std, zero biases.

    Args:
        method: id of the method that asks, for refusals.
        nonlinearity: used where the config leaves it empty.
        bias_copies: how often the output bias is added.

    Raises:
        InputError: the backbone has no place for this kind of adapter.
    """
    attached = Attached(backbone, generator.initial_seed())
    places = backbone.adapter_places(kind)
    if not places:
        raise InputError("method", method, f"{backbone.id} has no place for this kind of adapter")
    phi = config.nonlinearity or nonlinearity
    modules: list[tuple[AdapterPlace, Bottleneck]] = []
    for place in places:
        module = _adapter(
            place, config.bottleneck, attached.seed, backbone.adapter_defaults.std, phi, boost, bias_copies
        )
        attached.add_at_place(place, module)
        attached.add_tensor(place.name, "V", module.mask_V, place.name, in_product=True)
        attached.add_tensor(place.name, "U", module.mask_U, place.name, in_product=True)
        attached.add_tensor(place.name, "b_V", None, place.name, in_product=False)
        attached.add_tensor(place.name, "b_U", None, place.name, in_product=False)
        modules.append((place, module))
    attached.updates = lambda: [_linear_map(place, module) for place, module in modules]
    return attached


def _adapter(
    place: AdapterPlace,
    bottleneck: int,
    seed: int,
    std: float,
    nonlinearity: str,
    boost: BoostConfig | None,
    bias_copies: int,
) -> Bottleneck:
    shape_v, shape_u = (bottleneck, place.width), (place.width, bottleneck)
    initial = {
        role: nn.init.normal_(torch.empty(shape), std=std, generator=keyed_generator(seed, place.name, role))
        for role, shape in (("V", shape_v), ("U", shape_u))
    }
    return Bottleneck(
        transform(shape_v, boost, place.name, "V", seed),
        transform(shape_u, boost, place.name, "U", seed),
        initial["V"],
        initial["U"],
        nonlinearity,
        bias_copies,
    )


def _linear_map(place: AdapterPlace, module: Bottleneck) -> WeightUpdate:
    left, right = module.factors()
    same = getattr(getattr(module.mask_V, "config", None), "masks", None) == "same"
    bound = min(module.V.shape[0] if same else left.shape[1], place.width)
    return WeightUpdate(place.name, place.layer, place.after, bound, left=left, right=right, kind="linear_map")
