"""ProPETL on prefix-tuning: (P_Kl, P_Vl) = P * m_l with one block P (l x 2 h) of l keys and values for all layers.

Zeng et al. 2023, "One Network, Many Masks", eq. 5, appendices A.3 and B.4; `_propetl` tells the ablations. While
training an embedding makes the block: l x h -> h x 512 -> tanh -> 512 x 2 h, initialised as torch does; the masks lie
on what it makes. After training the block is evaluated once and stored flat, beside the masks. Stored bits:
(32 + L) 2 l h. The papers count the flat block and the scores; what trains is more, 2.41M values on RoBERTa-base at
l = 64 (`trainable`). FLOPs are those of prefix-tuning.
Where the paper's equation has separate masks for P_K and P_V, its code draws one top-k over both together; so do we.
First scores: U(+-1/sqrt(2 l h)). Without sharing (`share=false`) the embedding is one and the second map is one a
layer, as in prefix-tuning. T5, where the paper has none, has three blocks, of an embedding each: encoder
self-attention, decoder self-attention, cross-attention.
The paper trains the embedding at 1e-4 for many epochs; the default here suits short runs (of 1e-3, 2e-3, 5e-3 and 1e-2
it was best or near it on tiny-text; 1e-2 diverges). The masks' 1e-4 is the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from peft_core.methods._contract import Attached, Method, MethodConfig
from peft_core.methods._masks import WeightTransform
from peft_core.methods._modules import inverse_root
from peft_core.methods._prefix import Trunk, draw_linear, draw_trunk, linear_maps, make_block, places_of, put
from peft_core.methods._propetl import Builder, PropetlConfig, Prototype
from peft_core.records import Backbone, PrefixPlace


class Config(MethodConfig, PropetlConfig):
    """Options of ProPETL on prefix-tuning."""

    free: ClassVar[str | None] = "length"
    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")
    mask_learning_rate: float = Field(1e-4, gt=0, le=10, description="peak learning rate of the masks' scores")
    length: int = Field(16, ge=1, le=4096, description="extra keys and values l of every attention")
    bottleneck: int = Field(512, ge=1, le=65536, description="width between the two maps that make them")


class MadePrototype(Prototype):
    """P = keys beside values (l, 2 n), made from a trunk that prototypes of a group share; n: features of a key."""

    made = True

    def __init__(self, trunk: Trunk, weight: Tensor, bias: Tensor) -> None:
        super().__init__({"W": weight, "b": bias})
        self.trunk = trunk

    def shared(self) -> dict[str, Tensor]:
        return {"P": make_block(self.trunk, self.get_parameter("W"), self.get_parameter("b"))}


class MaskedPrefix(nn.Module):
    """One layer's keys and values: the block that `shared` gives, under this layer's mask."""

    def __init__(self, mask: WeightTransform, shared: Callable[[], dict[str, Tensor]]) -> None:
        super().__init__()
        self.mask_P, self._shared = mask, shared

    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys (l, n) and values (l, n)."""
        keys, values = self.mask_P(self._shared()["P"]).squeeze(0).chunk(2, dim=1)
        return keys, values


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A masked block in front of every attention.

    Raises:
        InputError: the backbone has no attention that takes one.
    """
    builder = Builder(backbone, config, generator.initial_seed())
    trunks: dict[str, Trunk] = {}
    for place in places_of(backbone, METHOD.id):
        if place.group not in trunks:
            trunks[place.group] = draw_trunk(builder.attached, place.group, config.length, config.bottleneck)
        put(builder.attached, place, _prefix(place, trunks[place.group], config, builder))
    attached = builder.finish()
    attached.updates = partial(linear_maps, attached, config.length)
    return attached


def _prefix(place: PrefixPlace, trunk: Trunk, config: Config, builder: Builder) -> MaskedPrefix:
    shape = (config.length, 2 * place.width)

    def first() -> Prototype:
        return MadePrototype(trunk, *draw_linear(builder.attached, (shape[1], config.bottleneck), place.name))

    prototype = builder.prototype(place.group, place.name, first)
    mask = builder.mask(shape, place.name, "P", inverse_root(shape[0] * shape[1]))
    prototype.users[place.name] = module = MaskedPrefix(mask, partial(builder.shared, place.group, place.name))
    return module


METHOD = Method(
    id="propetl_prefix",
    title="ProPETL-Prefix",
    family="prefix",
    source="Zeng et al. 2023, eq. 5",
    Config=Config,
    attach=attach,
    zero_init=False,
)
