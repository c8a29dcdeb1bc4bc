"""Attaching low-rank pairs to sites: shared by every method of the low-rank family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from peft_core.methods._contract import Attached, LowRankConfig, WeightUpdate, chosen_sites
from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import KeyedDropout, LowRank, inverse_root, kaiming, keyed_generator
from peft_core.records import Backbone, InputError, Site


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
) -> Attached:
    """A low-rank pair, or a triple with a gate, at every site, boosted or not.

    Args:
        generator: its initial seed is the run's seed; every tensor draws from a stream of its own.

    Raises:
        InputError: a rank above the smaller side of an adapted map.
    """
    attached = Attached(backbone, generator.initial_seed())
    modules: dict[str, tuple[Site, LowRank]] = {}
    for site in chosen_sites(backbone, config.sites):
        module = _module(site, config, attached.seed, boost, start)
        attached.add_at_site(site, module)
        attached.add_tensor(site.name, "A", module.mask_A, site.name, in_product=True, kept=module.kept_a)
        attached.add_tensor(site.name, "B", module.mask_B, site.name, in_product=True, kept=module.kept_b)
        if module.gate is not None:
            attached.add_tensor(site.name, "gate", None, site.name, in_product=False)
        modules[site.name] = (site, module)
    attached.updates = lambda: [_update(site, module, config.rank) for site, module in modules.values()]
    return attached


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
