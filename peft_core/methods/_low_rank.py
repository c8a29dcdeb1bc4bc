"""Attaching low-rank pairs to sites: shared by every method of the low-rank family."""

from __future__ import annotations

import torch

from peft_core.methods._contract import Attached, LowRankConfig, WeightUpdate
from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import KeyedDropout, LowRank, inverse_root, kaiming, keyed_generator
from peft_core.records import Backbone, InputError, Site


def attach_low_rank(
    backbone: Backbone,
    config: LowRankConfig,
    generator: torch.Generator,
    boost: BoostConfig | None = None,
    a_bound: str = "in",
    a_std: float | None = None,
) -> Attached:
    """A low-rank pair at every site, boosted or not.

    Args:
        generator: its initial seed is the run's seed; every tensor draws from a stream of its own.
        a_bound: A ~ U(+-1/sqrt(in)) for `in`, the standard; U(+-1/sqrt(r)) for `rank`.
        a_std: A ~ N(0, std^2) instead, where given.

    Raises:
        InputError: a rank above the smaller side of an adapted map.
    """
    attached = Attached(backbone, generator.initial_seed())
    modules: dict[str, tuple[Site, LowRank]] = {}
    for site in backbone.sites(config.sites):
        module = _pair(site, config, attached.seed, boost, a_bound, a_std)
        attached.add_at_site(site, module)
        attached.add_tensor(site.name, "A", module.mask_A, site.name, in_product=True)
        attached.add_tensor(site.name, "B", module.mask_B, site.name, in_product=True)
        modules[site.name] = (site, module)
    attached.updates = lambda: [_update(site, module, config.rank) for site, module in modules.values()]
    return attached


def _pair(
    site: Site, config: LowRankConfig, seed: int, boost: BoostConfig | None, a_bound: str, a_std: float | None
) -> LowRank:
    largest = min(site.in_features, site.out_features)
    if config.rank > largest:
        raise InputError("rank", config.rank, f"it must be at most {largest}, the smaller side of {site.name}")
    shape_a, shape_b = (config.rank, site.in_features), (site.out_features, config.rank)
    bound = inverse_root(site.in_features if a_bound == "in" else config.rank)
    draws = keyed_generator(seed, site.name, "A")
    initial = (
        kaiming(shape_a, bound, draws) if a_std is None else torch.empty(shape_a).normal_(0, a_std, generator=draws)
    )
    return LowRank(
        transform(shape_a, boost, site.name, "A", seed),
        transform(shape_b, boost, site.name, "B", seed),
        initial,
        site.out_features,
        config.scale,
        KeyedDropout(config.dropout, seed, site.name),
    )


def _update(site: Site, module: LowRank, rank: int) -> WeightUpdate:
    left, right = module.factors()
    largest = min(site.in_features, site.out_features)
    bound = min(rank if same_masks(module) else left.shape[1], largest)
    return WeightUpdate(site.name, site.layer, site.role, bound, left=left, right=right)


def same_masks(module: LowRank) -> bool:
    """True where all branches share their masks, so that their sum has no more rank than one of them."""
    return getattr(getattr(module.mask_A, "config", None), "masks", None) == "same"
