"""LoRA: y = W x + (alpha / r) B A x with A ~ U(+-1/sqrt(in)) and B = 0.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3. No biases; r (in + out) parameters a site.
`boost.*` puts CapaBoost over it, which is then `capaboost_lora` bit for bit.
`rank_pattern` gives every map a rank of its own: LoRA trained again with the ranks that another run has learned, as
IncreLoRA's ablations do. `rank` is then the largest of them, and the scale alpha / r holds map by map.
Where the comparison's papers write the factor as alpha alone, their code divides by r; so do we, and the default is 1.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator

from peft_core.methods._contract import Attached, BoostableConfig, Method
from peft_core.methods._low_rank import attach_low_rank
from peft_core.methods._rank_pattern import is_pattern, parse_pattern, sites_of_pattern
from peft_core.records import Backbone, InputError


class Config(BoostableConfig):
    """Options of LoRA."""

    learning_rate: float = Field(9e-3, gt=0, le=10, description="peak learning rate of this method")
    rank_pattern: str | None = Field(
        None,
        max_length=20_000,
        description="ranks map by map: those a finished run has learned (its id), a JSON file of them, or written out, "
        "layer.*.q:4.2.0; instead of rank and sites",
    )

    @model_validator(mode="after")
    def _pattern_decides(self) -> Config:
        """The pattern says which maps and ranks: `rank` becomes the largest of them."""
        if self.rank_pattern is None:
            return self
        if self.sites is not None:
            raise InputError("sites", self.sites, "leave it out beside a rank_pattern, which names the maps")
        if is_pattern(self.rank_pattern):
            largest = max(parse_pattern(self.rank_pattern).values())
            if "rank" in self.model_fields_set and self.rank != largest:
                raise InputError("rank", self.rank, f"leave it out: the largest of the rank_pattern is {largest}")
            object.__setattr__(self, "rank", largest)
        elif "rank" in self.model_fields_set:
            raise InputError("rank", self.rank, "leave it out beside a rank_pattern, which says the ranks")
        return self


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A low-rank pair at every site.

    Raises:
        InputError: ranks that the backbone has no room for, or a pattern that is still the name of a run or a file.
    """
    if config.rank_pattern is None:
        return attach_low_rank(backbone, config, generator, config.boost)
    if not is_pattern(config.rank_pattern):
        allowed = "it must be the id of a finished run, a JSON file of ranks, or written layer.*.q:4.2.0/layer.*.v:1.3"
        raise InputError("rank_pattern", config.rank_pattern, allowed)
    sites = sites_of_pattern(backbone, config.rank_pattern)
    return attach_low_rank(backbone, config, generator, config.boost, sites=sites)


METHOD = Method(
    id="lora",
    title="LoRA",
    family="low-rank",
    source="Hu et al. 2022, eq. 3",
    Config=Config,
    attach=attach,
    boosts=True,
    mergeable=True,
    part="yardstick",
)
