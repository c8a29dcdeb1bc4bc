"""IncreLoRA: y = W x + alpha / (r_k + 1e-5) B diag(lambda) A x; ranks grow where the update matters most.

Zhang et al. 2023, "IncreLoRA: Incremental Parameter Allocation Method for Parameter-Efficient Fine-tuning", eqs. 3 to 8
and Algorithm 1. Every map starts with one active component (a, b ~ N(0, 0.02^2), lambda = 0) and c in reserve, added in
step 0, whose lambda rests at 1e-5 while a and b train (advance learning). Every nu steps the h maps of the largest
I U gain rank: their reserve's lambda becomes trainable, new reserves come, and all that is new warms up again. Once
the sum of the ranks is the target the reserves' lambdas are set to 0 and nothing grows any more.
S = |Delta W * dL/dDelta W| of the task loss alone, reserves and scale included, unclipped; I and U smooth it.
Delta W is not built: S is computed from saved inputs and output gradients, tile by tile, in every step until the target
is reached: 2 (tokens + R) in out FLOPs a map, and (in + out) floats a token kept until the step's end, those of all its
micro-batches together; there is no full-size matrix. The update itself runs factored.
Where paper and authors' code differ: eq. 3 has no factor, the code alpha / r_k with the active rank, so that what is
there shrinks when the rank grows, as here; Algorithm 1 shows only the reserve, the code adds an active component, as
here; S is a mean in the paper and a sum / sqrt(in out) in the code (`score`), which favours large maps; where a map is
used twice in a forward the code keeps one use's gradient, here it is the total; growth begins at nu in Algorithm 1 and
at 2 nu in the code (`first_growth`); with c > 1 the code can exceed its target and then never ends, here the last
maps gain less; the penalty is squared in eq. 4, and in the code the mean over all stacked A and B, reserves included,
of the unsquared norms, as here, its coefficient 0.1 being the code's alone; eq. 4 prints A^T A where A A^T is meant;
on DeBERTa the code's GLUE runs leave the relative positions out of the query's update, here both maps' updates reach
them (`bypass_positions` does as that code); without the restart of the warm-up new parameters follow the run's curve
as the paper says (the code: a constant rate).
The paper sets the interval equal to the warm-up: here each new clock rises over one interval. The papers' absolute
interval and h fit as options; a schedule that does not reach its target by half of the steps is refused.
A map never grows beyond its smaller side; where that holds maps back, the last round gives the rest to others.
Under CapaBoost all branches see one draw of the dropout, so that Delta W has one input that it is scored by.
Counts are of active components, as in the paper; budgets are at the target with ranks spread evenly. While growing, c
more components a map train: at the peak sum of (r_k + c)(in + out) + r_k.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from peft_core.methods._components import GrowingTriples, masks_of, triple_counts
from peft_core.methods._contract import Attached, Method, MethodConfig, WeightUpdate, chosen_sites
from peft_core.methods._growth import GrowthPlan
from peft_core.methods._masks import BoostConfig
from peft_core.methods._modules import KeyedDropout
from peft_core.methods._orthogonality import unsquared_penalty
from peft_core.methods._rank_allocator import Allocator
from peft_core.records import Backbone, InputError, SiteSelection


class Config(MethodConfig):
    """Options of IncreLoRA."""

    free: ClassVar[str | None] = "target_rank"
    anew: ClassVar[tuple[str, ...]] = (*MethodConfig.anew, "interval", "top_h", "first_growth")
    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")
    target_rank: int = Field(8, ge=1, le=8192, description="average rank of a map at the end")
    interval: int | None = Field(None, ge=1, le=1_000_000, description="nu: steps between growths; empty: by the run")
    top_h: int | None = Field(None, ge=1, le=100_000, description="h: maps that grow at a time; empty: by the run")
    reserve: int = Field(1, ge=1, le=64, description="c: components in reserve, and what a map gains at a time")
    first_growth: Literal["nu", "2nu"] = Field("nu", description="first growth: after nu steps, or 2 nu as the code")
    advance_learning: bool = Field(True, description="reserves train before they are activated")
    restart_warmup: bool = Field(True, description="new parameters warm up again; false: they follow the run's curve")
    orthogonality: float = Field(0.1, ge=0, le=100, description="coefficient of the penalty")
    score: Literal["sum_sqrt", "mean"] = Field("sum_sqrt", description="sum / sqrt(in out) as the code, or the mean")
    alpha: float = Field(16.0, gt=0, le=1e6, description="scale is alpha / rank of the map, as it is now")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the module's input, one draw for all branches")
    sites: SiteSelection | None = Field("six", description="adapted maps; empty: the architecture's default")
    bypass_positions: bool = Field(
        False, description="DeBERTa: the query's update leaves out the relative positions, as the authors' GLUE code"
    )
    beta1: float = Field(0.85, ge=0, lt=1, description="smoothing of the sensitivity")
    beta2: float = Field(0.85, ge=0, lt=1, description="smoothing of its uncertainty")
    boost: BoostConfig | None = Field(None, description="CapaBoost over this method; empty: none")

    @property
    def plan(self) -> GrowthPlan:
        return GrowthPlan(self.target_rank, self.interval, self.top_h, self.reserve, self.first_growth)


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A growing triple at every site, and the allocator over all of them.

    Raises:
        InputError: a target above the smaller side of an adapted map, or N:M masks.
    """
    if config.boost and config.boost.n_of_m:
        raise InputError("boost.masks", config.boost.masks, "B grows column by column; take random, same or dropout")
    attached = Attached(backbone, generator.initial_seed())
    if config.bypass_positions:
        attached.positions.left_out.add("q")
    sites = chosen_sites(backbone, config.sites)
    for site in sites:
        largest = min(site.in_features, site.out_features)
        if config.target_rank > largest:
            allowed = f"it must be at most {largest}, the smaller side of {site.name}"
            raise InputError("target_rank", config.target_rank, allowed)
        dropout = KeyedDropout(config.dropout, attached.seed, site.name)
        module = GrowingTriples(site, config.alpha, config.advance_learning, config.boost, attached.seed, dropout)
        attached.add_at_site(site, module)
    betas = (config.beta1, config.beta2)
    allocator = Allocator(attached, config.plan, betas, config.score == "mean", config.restart_warmup)
    modules = list(allocator.modules.values())
    allocator.count()
    attached.total_rank = allocator.target
    attached.counts_at_target = lambda: [
        entry
        for site in sites
        for entry in triple_counts(
            site, [masks_of(site, index, config.boost, attached.seed) for index in range(config.target_rank)]
        )
    ]
    attached.on_start.append(allocator.start)
    attached.before_update.append(allocator.before_update)
    attached.count_active = lambda: sum(module.active_parameters() for module in modules)
    attached.extra_state, attached.load_extra_state = allocator.extra_state, allocator.load_extra_state
    attached.pack, attached.unpack = allocator.pack, allocator.unpack
    attached.updates = lambda: [_update(module, allocator) for module in modules]
    if config.orthogonality:
        attached.penalty = lambda: config.orthogonality * unsquared_penalty([module.stacked() for module in modules])
    return attached


def _update(module: GrowingTriples, allocator: Allocator) -> WeightUpdate:
    """The active components' update; reserves are left out, as they are when it is stored."""
    left, right = module.factors()
    site, plan = module.site, allocator.plan
    rank = allocator.target - len(allocator.modules) + 1
    if allocator.schedule is not None:
        rank = min(rank, 1 + plan.reserve * allocator.schedule.rounds)
    copies = 1 if module.boost is None or module.boost.masks == "same" else module.branches
    bound = min(rank * copies, site.in_features, site.out_features)
    return WeightUpdate(site.name, site.layer, site.role, bound, left=left, right=right)


METHOD = Method(
    id="increlora",
    title="IncreLoRA",
    family="low-rank",
    source="Zhang et al. 2023",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
)
