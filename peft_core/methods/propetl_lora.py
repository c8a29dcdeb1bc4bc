"""ProPETL on LoRA: y = W x + (alpha / r) (B * m_Bl) (A * m_Al) x with one A and B for all layers of a role.

Zeng et al. 2023, "One Network, Many Masks", eq. 5 and appendix B.3; `_propetl` tells the masks and the ablations.
With the default sites two prototypes, a query pair and a value pair; with other sites a pair a role. A and B have masks
of their own. Prototypes start as LoRA's pair, so the output starts as the backbone's. First scores: A U(+-1/sqrt(in)),
B U(+-1/sqrt(r)). Stored bits: (32 + L) 4 r h where all maps are square.
Where the paper writes the factor as alpha alone, its code divides by r (48 / 32 = 1.5); so do we, and the default is 1.
It takes no `boost.*`: a fixed mask over the learned one would take away values that the top-k has chosen, so neither k
nor d would mean what it says.
The paper trains the pair at 1e-4 for many epochs; the default here suits short runs. The masks' 3e-2 is the paper's.
"""

from __future__ import annotations

import torch
from pydantic import Field

from peft_core.methods._contract import Attached, LowRankConfig, Method, WeightUpdate, chosen_sites
from peft_core.methods._modules import KeyedDropout, LowRank, inverse_root, kaiming, keyed_generator
from peft_core.methods._propetl import Builder, PropetlConfig, Prototype
from peft_core.records import Backbone, InputError, Site


class Config(LowRankConfig, PropetlConfig):
    """Options of ProPETL on LoRA."""

    learning_rate: float = Field(1e-2, gt=0, le=10, description="peak learning rate of this method")
    mask_learning_rate: float = Field(3e-2, gt=0, le=10, description="peak learning rate of the masks' scores")


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A masked low-rank pair at every site.

    Raises:
        InputError: a rank above the smaller side of an adapted map.
    """
    builder = Builder(backbone, config, generator.initial_seed())
    sites = chosen_sites(backbone, config.sites)
    pairs = [(site, _pair(site, group, config, builder)) for site, group in zip(sites, _groups(sites), strict=True)]
    attached = builder.finish()
    attached.updates = lambda: [_update(site, pair, config.rank) for site, pair in pairs]
    return attached


def _groups(sites: tuple[Site, ...]) -> list[str]:
    """Who shares: the sites of a role, apart where their shapes differ."""
    shapes = {site.role: {(s.out_features, s.in_features) for s in sites if s.role == site.role} for site in sites}
    return [
        site.role if len(shapes[site.role]) == 1 else f"{site.role}_{site.out_features}x{site.in_features}"
        for site in sites
    ]


def _pair(site: Site, group: str, config: Config, builder: Builder) -> LowRank:
    largest, seed = min(site.in_features, site.out_features), builder.attached.seed
    if config.rank > largest:
        raise InputError("rank", config.rank, f"it must be at most {largest}, the smaller side of {site.name}")
    shape_a, shape_b = (config.rank, site.in_features), (site.out_features, config.rank)

    def first() -> Prototype:
        a = kaiming(shape_a, inverse_root(site.in_features), keyed_generator(seed, site.name, "A"))
        return Prototype({"A": a, "B": torch.zeros(shape_b)})

    prototype = builder.prototype(group, site.name, first)
    module = LowRank(
        builder.mask(shape_a, site.name, "A", inverse_root(site.in_features)),
        builder.mask(shape_b, site.name, "B", inverse_root(config.rank)),
        prototype.get_parameter("A").detach(),
        prototype.get_parameter("B").detach(),
        config.scale,
        KeyedDropout(config.dropout, seed, site.name),
    )
    prototype.tie(site.name, module)
    builder.attached.add_at_site(site, module)
    return module


def _update(site: Site, pair: LowRank, rank: int) -> WeightUpdate:
    left, right = pair.factors()
    return WeightUpdate(site.name, site.layer, site.role, rank, left=left, right=right)


METHOD = Method(
    id="propetl_lora",
    title="ProPETL-LoRA",
    family="low-rank",
    source="Zeng et al. 2023, eq. 5",
    Config=Config,
    attach=attach,
    mergeable=True,
)
