"""Attaching low-rank pairs to sites: shared by every method of the low-rank family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from peft_core.methods._bits import pack_bits, unpack_bits
from peft_core.methods._contract import Attached, LowRankConfig, WeightUpdate, chosen_sites
from peft_core.methods._counting import tensor_count
from peft_core.methods._masks import BoostConfig, WeightTransform, transform
from peft_core.methods._modules import KeyedDropout, LowRank, inverse_root, kaiming, keyed_generator
from peft_core.metrics.parameters import TensorCount
from peft_core.records import Backbone, InputError, Site

DIRECTIONS = "directions"
"""Name of the stored tensor that says of all gated pairs, one bit a direction, which directions are stored."""


@dataclass(frozen=True)
class Start:
    """First values of a low-rank pair or triple.

    a_bound: A ~ U(+-1/sqrt(in)) for `in`, the standard; U(+-1/sqrt(r)) for `rank`. a_std: A ~ N(0, std^2) instead.
    b_std: B ~ N(0, std^2), 0 for zeros. gate_std: a gate g ~ N(0, std^2), 0 for zeros; None for no gate.
    """

    a_bound: Literal["in", "rank"] = "in"
    a_std: float | None = None
    b_std: float = 0.0
    gate_std: float | None = None


def attach_low_rank(
    backbone: Backbone,
    config: LowRankConfig,
    generator: torch.Generator,
    boost: BoostConfig | None = None,
    start: Start = Start(),
    left: int | None = None,
    sites: Sequence[tuple[Site, int]] | None = None,
) -> Attached:
    """A low-rank pair, or a triple with a gate, at every site, boosted or not.

    Args:
        generator: its initial seed is the run's seed; every tensor draws from a stream of its own.
        sites: maps and the rank of each, where they are not the config's.
        left: directions a map, in the mean, that training leaves, where that is known before: they count as stored.

    Raises:
        InputError: a rank above the smaller side of an adapted map.
    """
    attached = Attached(backbone, generator.initial_seed())
    modules: dict[str, tuple[Site, LowRank]] = {}
    share = 1.0 if left is None else left / config.rank
    chosen = sites if sites is not None else [(site, config.rank) for site in chosen_sites(backbone, config.sites)]
    for site, rank in chosen:
        module = _module(site, config.model_copy(update={"rank": rank}), attached.seed, boost, start)
        attached.add_at_site(site, module)
        for role, mask, kept in (("A", module.mask_A, module.kept_a), ("B", module.mask_B, module.kept_b)):
            attached.add_tensor(site.name, role, mask, site.name, True, kept, _left(mask, share))
        if module.gate is not None:
            gates = _stored(rank, rank, share)
            attached.add_tensor(site.name, "gate", None, site.name, False, module.alive, gates)
        modules[site.name] = (site, module)
    if start.gate_std is not None:
        gated = {name: module for name, (_, module) in modules.items()}
        _store_directions(attached, gated)
        attached.count_products = lambda: [_as_gated(count, gated[count.site]) for count in attached.counts]
    attached.updates = lambda: [_update(site, module, len(module.A)) for site, module in modules.values()]
    return attached


def _store_directions(attached: Attached, modules: Mapping[str, LowRank]) -> None:
    """Stores of gated pairs the directions whose gate is not zero, and a bit for each direction."""
    gates = {name: module.gate for name, module in modules.items() if module.gate is not None}
    for name, gate in gates.items():
        bits = {"kept": 0, "nominal_kept": 0.0, "multiplied": 0, "stored": len(gate), "nominal_stored": 0.0}
        attached.counts.append(
            tensor_count(f"{name}.{DIRECTIONS}", name, DIRECTIONS, gate, differs=bits | {"stored_bits": 1})
        )

    def pack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        alive = [gate.detach() != 0 for gate in gates.values()]
        return tensors | {DIRECTIONS: pack_bits(torch.cat(alive))}

    @torch.no_grad()
    def unpack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        packed, sizes = tensors.pop(DIRECTIONS, None), [len(gate) for gate in gates.values()]
        if packed is None or packed.dtype != torch.uint8 or packed.numel() != -(-sum(sizes) // 8):
            raise InputError("adapter", DIRECTIONS, f"it must hold one bit for each of {sum(sizes)} directions")
        for gate, alive in zip(gates.values(), unpack_bits(packed, sum(sizes)).split(sizes), strict=True):
            gate.copy_(alive)
        return tensors

    attached.pack, attached.unpack = pack, unpack


def _left(mask: WeightTransform, share: float) -> dict[str, Any]:
    """The same of a factor, whose products shrink with it."""
    products = {"multiplied": round(share * mask.multiplied)} if share < 1 else {}
    return _stored(mask.kept, mask.nominal_kept, share) | products


def _as_gated(count: TensorCount, module: LowRank) -> TensorCount:
    """The count with the non-zeros of the directions that are alive."""
    alive = module.alive()
    if alive is None or count.role not in ("A", "B"):
        return count
    mask, axis = (module.mask_A, 0) if count.role == "A" else (module.mask_B, 1)
    return replace(count, multiplied=mask.multiplied_of(alive, axis))


def _stored(kept: int, nominal: float, share: float) -> dict[str, Any]:
    """Fields of the count of a tensor of which training leaves a share; exact where no mask is on it."""
    return {"stored": round(share * kept), "nominal_stored": share * nominal} if share < 1 else {}


def _module(site: Site, config: LowRankConfig, seed: int, boost: BoostConfig | None, start: Start) -> LowRank:
    largest = min(site.in_features, site.out_features)
    if config.rank > largest:
        raise InputError("rank", config.rank, f"it must be at most {largest}, the smaller side of {site.name}")
    shape_a, shape_b = (config.rank, site.in_features), (site.out_features, config.rank)
    return LowRank(
        transform(shape_a, boost, site.name, "A", seed),
        transform(shape_b, boost, site.name, "B", seed),
        _first_a(shape_a, start, keyed_generator(seed, site.name, "A")),
        _normal(shape_b, start.b_std, seed, site.name, "B"),
        config.scale,
        KeyedDropout(config.dropout, seed, site.name),
        None if start.gate_std is None else _normal((config.rank,), start.gate_std, seed, site.name, "gate"),
    )


def _first_a(shape: tuple[int, int], start: Start, generator: torch.Generator) -> Tensor:
    if start.a_std is not None:
        return torch.empty(shape).normal_(0, start.a_std, generator=generator)
    return kaiming(shape, inverse_root(shape[1] if start.a_bound == "in" else shape[0]), generator)


def _normal(shape: tuple[int, ...], std: float, *key: object) -> Tensor:
    return torch.empty(shape).normal_(0, std, generator=keyed_generator(*key)) if std else torch.zeros(shape)


def _update(site: Site, module: LowRank, rank: int) -> WeightUpdate:
    left, right = module.factors()
    largest = min(site.in_features, site.out_features)
    bound = min(rank if same_masks(module) else left.shape[1], largest)
    return WeightUpdate(site.name, site.layer, site.role, bound, left=left, right=right)


def same_masks(module: LowRank) -> bool:
    """True where all branches share their masks, so that their sum has no more rank than one of them."""
    return getattr(getattr(module.mask_A, "config", None), "masks", None) == "same"
