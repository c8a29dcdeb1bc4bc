"""ProPETL on Pfeiffer's adapter: A_l(u) = (U * m_Ul) phi((V * m_Vl) u + b_V) + b_U, one V, U, b_V, b_U for all layers.

Zeng et al. 2023, "One Network, Many Masks", eq. 5 and appendix B.2; `_propetl` tells the masks and the ablations.
V and U have masks of their own; biases are shared and unmasked. Encoder and decoder of T5 share one prototype. It
starts as Pfeiffer's adapter does. First scores: V U(+-1/sqrt(bn)), U U(+-1/sqrt(h)), because the authors' code keeps
them transposed; on T5 the reverse. Stored bits: 32 (2 bn h + bn + h) + 2 bn h L; T5 has 2 L layers.
The authors' T5 code sets the masks' rate to 10 times the current rate of the weights before every step; here it follows
its own curve of the same shape. The paper trains the adapter at 1e-4 for many epochs; the default here suits short
runs. The masks' 3e-3 is the paper's.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from peft_core.methods._adapters import AdapterConfig
from peft_core.methods._contract import Attached, Method, WeightUpdate
from peft_core.methods._modules import Bottleneck, inverse_root, keyed_generator
from peft_core.methods._propetl import Builder, PropetlConfig, Prototype
from peft_core.records import AdapterPlace, Backbone, InputError


class Config(AdapterConfig, PropetlConfig):
    """Options of ProPETL on Pfeiffer's adapter."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of this method")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A masked bottleneck adapter after every feed-forward block.

    Raises:
        InputError: the backbone has no place for it.
    """
    places = backbone.adapter_places("pfeiffer")
    if not places:
        raise InputError("method", METHOD.id, f"{backbone.id} has no place for this kind of adapter")
    builder = Builder(backbone, config, generator.initial_seed())
    adapters = [(place, _adapter(place, backbone, config, builder)) for place in places]
    attached = builder.finish()
    attached.updates = lambda: [_linear_map(place, adapter) for place, adapter in adapters]
    return attached


def _adapter(place: AdapterPlace, backbone: Backbone, config: Config, builder: Builder) -> Bottleneck:
    seed, width, bottleneck, defaults = builder.attached.seed, place.width, config.bottleneck, backbone.adapter_defaults
    shapes = {"V": (bottleneck, width), "U": (width, bottleneck)}

    def first() -> Prototype:
        drawn = {
            role: nn.init.normal_(
                torch.empty(shape), std=defaults.std, generator=keyed_generator(seed, place.name, role)
            )
            for role, shape in shapes.items()
        }
        return Prototype(drawn | {"b_V": torch.zeros(bottleneck), "b_U": torch.zeros(width)})

    prototype = builder.prototype("adapter", place.name, first)
    axis = 1 if backbone.family == "t5" else 0
    module = Bottleneck(
        builder.mask(shapes["V"], place.name, "V", inverse_root(shapes["V"][axis])),
        builder.mask(shapes["U"], place.name, "U", inverse_root(shapes["U"][axis])),
        prototype.get_parameter("V").detach(),
        prototype.get_parameter("U").detach(),
        config.nonlinearity or defaults.nonlinearity,
    )
    prototype.tie(place.name, module)
    builder.attached.add_at_place(place, module)
    return module


def _linear_map(place: AdapterPlace, adapter: Bottleneck) -> WeightUpdate:
    left, right = adapter.factors()
    bound = min(adapter.V.shape[0], place.width)
    return WeightUpdate(place.name, place.layer, place.after, bound, left=left, right=right, kind="linear_map")


METHOD = Method(
    id="propetl_pfeiffer",
    title="ProPETL-PAdapter",
    family="adapter",
    source="Zeng et al. 2023, eq. 5",
    Config=Config,
    attach=attach,
    zero_init=False,
)
