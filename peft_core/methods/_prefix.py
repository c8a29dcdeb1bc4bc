"""Attaching prefixes to attentions: shared by prefix-tuning and what goes over it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._attention import Front, prefixed
from peft_core.methods._contract import Attached, WeightUpdate
from peft_core.methods._masks import BoostConfig, WeightTransform, transform
from peft_core.methods._modules import inverse_root, keyed_generator
from peft_core.metrics.parameters import NOT_STORED, TensorCount
from peft_core.records import Backbone, InputError, PrefixPlace

FLAT_STD = 0.02
"""First values of a flat prefix are N(0, 0.02^2), as transformers initialise embeddings."""


class Prefix(nn.Module):
    """d masked copies of l keys P_K (l, n) and values P_V (n, l); n: features of a key, all heads together.

    Queries meet P_K along n and attention weights meet P_V along l: the last axis of each is the contracted one.
    """

    def __init__(self, k: WeightTransform, v: WeightTransform, initial_k: Tensor, initial_v: Tensor) -> None:
        super().__init__()
        self.P_K, self.P_V = nn.Parameter(initial_k), nn.Parameter(initial_v)
        self.mask_K, self.mask_V = k, v

    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys (d l, n) and values (d l, n), copy after copy."""
        return self.mask_K(self.P_K).flatten(0, 1), self.mask_V(self.P_V).transpose(1, 2).flatten(0, 1)


class Trunk(nn.Module):
    """tanh(W E + b) with E (l, h), W (bn, h): what all layers' prefixes of a set are made from."""

    def __init__(self, embedding: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.E, self.W, self.b = nn.Parameter(embedding), nn.Parameter(weight), nn.Parameter(bias)

    def forward(self) -> Tensor:
        """(l, bn)."""
        return torch.tanh(F.linear(self.E, self.W, self.b))


class MadePrefix(nn.Module):
    """One layer's part of the reparametrisation: (P_K, P_V) = trunk W^T + b, W (2 n, bn).

    The trunk belongs to the whole set and is no submodule of this.
    """

    def __init__(self, trunk: Trunk, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(weight), nn.Parameter(bias)
        self._trunk = trunk.forward

    def rows(self) -> tuple[Tensor, Tensor]:
        """Keys (l, n) and values (l, n)."""
        keys, values = make_block(self._trunk, self.W, self.b).chunk(2, dim=1)
        return keys, values


def make_block(trunk: Callable[[], Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """Keys beside values (l, 2 n) = trunk W^T + b, W (2 n, bn); in float32 under autocast too, as they are stored."""
    device = weight.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        return F.linear(trunk(), weight, bias)


def attach_flat(
    backbone: Backbone, length: int, generator: torch.Generator, method: str, boost: BoostConfig | None = None
) -> Attached:
    """A trained prefix in front of every attention, boosted or not: P_K, P_V ~ N(0, 0.02^2).

    Raises:
        InputError: the backbone has no attention that takes one.
    """
    attached = Attached(backbone, generator.initial_seed())
    for place in places_of(backbone, method):
        prefix = _flat(attached, place, length, boost)
        put(attached, place, prefix)
        for role, mask in (("P_K", prefix.mask_K), ("P_V", prefix.mask_V)):
            attached.add_tensor(place.name, role, mask, place.name, in_product=True, differs={"readers": place.groups})
    bound = length if boost is None or boost.masks == "same" else boost.d * length
    attached.updates = partial(linear_maps, attached, bound)
    return attached


def attach_made(backbone: Backbone, length: int, bottleneck: int, generator: torch.Generator, method: str) -> Attached:
    """A prefix in front of every attention, made from a small embedding while training and stored flat.

    Values that train are counted as trained, the flat ones as stored and as multiplied. Making the prefix is a cost a
    step, not a token, and is left out of the FLOPs.

    Raises:
        InputError: the backbone has no attention that takes one.
    """
    attached = Attached(backbone, generator.initial_seed())
    trunks: dict[str, Trunk] = {}
    for place in places_of(backbone, method):
        if place.group not in trunks:
            trunks[place.group] = _add_trunk(attached, place.group, length, bottleneck)
        shape = (2 * place.width, bottleneck)
        weight, bias = draw_linear(attached, shape, place.name)
        put(attached, place, MadePrefix(trunks[place.group], weight, bias))
        for role in ("W", "b"):
            attached.add_tensor(place.name, role, None, place.name, in_product=False, differs=NOT_STORED)
        attached.counts += [_stored(place, "P_K", length, place.width), _stored(place, "P_V", place.width, length)]
    attached.updates = partial(linear_maps, attached, length)
    attached.one_way = "its prefixes are stored without the network that made them, so training cannot go on from them"
    attached.pack = partial(_pack, attached)
    attached.unpack = partial(_unpack, attached, length)
    return attached


def places_of(backbone: Backbone, method: str) -> tuple[PrefixPlace, ...]:
    """Where prefixes go. method: id of the method that asks, for refusals.

    Raises:
        InputError: nowhere.
    """
    places = backbone.prefix_places()
    if not places:
        raise InputError("method", method, f"{backbone.id} has no attention that takes extra keys and values")
    return places


def put(attached: Attached, place: PrefixPlace, prefix: nn.Module) -> None:
    """The module at the place's name, whichever it is by then, gives the rows: its `rows()`, as of `Prefix`."""
    model = attached.backbone.model
    attached.add_within(
        place.name,
        prefix,
        lambda: prefixed(model, place, lambda: _rows(attached, place)),
        lambda: prefixed(model, place, lambda: _no_rows(attached, place)),
        Front(place, lambda: _rows(attached, place)),
    )


def _rows(attached: Attached, place: PrefixPlace) -> tuple[Tensor, Tensor]:
    prefix: Any = attached.modules[place.name]
    keys, values = prefix.rows()
    return keys, values


def _no_rows(attached: Attached, place: PrefixPlace) -> tuple[Tensor, Tensor]:
    empty = torch.empty(0, place.width, device=attached.device, requires_grad=True)
    return empty, empty


def _flat(attached: Attached, place: PrefixPlace, length: int, boost: BoostConfig | None = None) -> Prefix:
    shape_k, shape_v = (length, place.width), (place.width, length)
    return Prefix(
        transform(shape_k, boost, place.name, "P_K", attached.seed),
        transform(shape_v, boost, place.name, "P_V", attached.seed),
        _draw(attached, shape_k, (place.name, "P_K")).mul_(FLAT_STD),
        _draw(attached, shape_v, (place.name, "P_V")).mul_(FLAT_STD),
    )


def draw_trunk(attached: Attached, group: str, length: int, bottleneck: int) -> Trunk:
    """E ~ N(0, 1) and a linear map, both as torch initialises them."""
    width, name = attached.backbone.hidden_size, f"{group}.trunk"
    weight, bias = draw_linear(attached, (bottleneck, width), name)
    return Trunk(_draw(attached, (length, width), (name, "E")), weight, bias)


def _add_trunk(attached: Attached, group: str, length: int, bottleneck: int) -> Trunk:
    name, trunk = f"{group}.trunk", draw_trunk(attached, group, length, bottleneck)
    attached.add_module(name, trunk)
    for role in ("E", "W", "b"):
        attached.add_tensor(name, role, None, name, in_product=False, differs=NOT_STORED)
    return trunk


def draw_linear(attached: Attached, shape: tuple[int, int], name: str) -> tuple[Tensor, Tensor]:
    """weight and bias ~ U(+-1/sqrt(in))."""
    bound = inverse_root(shape[1])
    weight, bias = (_draw(attached, size, (name, role), bound) for size, role in ((shape, "W"), (shape[:1], "b")))
    return weight, bias


def _draw(attached: Attached, shape: tuple[int, ...], key: tuple[str, str], bound: float | None = None) -> Tensor:
    """N(0, 1), or U(-bound, bound); nothing is drawn on the meta device: a large model's maps take gigabytes."""
    if attached.device.type == "meta":
        return torch.empty(shape, device="meta")
    values, generator = torch.empty(shape), keyed_generator(attached.seed, *key)
    if bound is None:
        return values.normal_(generator=generator)
    return values.uniform_(-bound, bound, generator=generator)


def _stored(place: PrefixPlace, role: str, rows: int, cols: int) -> TensorCount:
    """A flat tensor that is stored and multiplies every token, but does not train itself."""
    size = rows * cols
    return TensorCount(
        name=f"{place.name}.{role}",
        site=place.name,
        role=role,
        rows=rows,
        cols=cols,
        is_bias=False,
        copies=1,
        kept=0,
        nominal_kept=0.0,
        multiplied=size,
        stored=size,
        nominal_stored=float(size),
        readers=place.groups,
    )


def linear_maps(attached: Attached, bound: int) -> list[WeightUpdate]:
    """P_V P_K of every attention: what a prefix would be without its softmax (CapaBoost, eq. 5)."""
    updates = []
    for place in attached.backbone.prefix_places():
        keys, values = _rows(attached, place)
        largest = min(bound, place.width)
        updates.append(
            WeightUpdate(place.name, place.layer, place.after, largest, left=values.T, right=keys, kind="linear_map")
        )
    return updates


@torch.no_grad()
def _pack(attached: Attached, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The flat prefixes in place of the tensors that make them."""
    flat = {}
    for place in attached.backbone.prefix_places():
        keys, values = _rows(attached, place)
        flat[f"{place.name}.P_K"] = keys.contiguous().cpu()
        flat[f"{place.name}.P_V"] = values.T.contiguous().cpu()
    return flat


def _unpack(attached: Attached, length: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Lets the attachment go on with flat prefixes, which the stored tensors then fill."""
    attached.modules = {}
    for place in attached.backbone.prefix_places():
        attached.modules[place.name] = _flat(attached, place, length).to(attached.device)
    return tensors
