"""Options that methods have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from peft_core.methods._masks import BoostConfig
from peft_core.records import Backbone, Frozen, InputError, Site, SiteSelection


class MethodConfig(Frozen):
    """Options common to all methods.

    Each method has a default rate of its own: what the sweep in assets/sweeps/learning_rates.json chose over four
    embedded tasks (`tests/methods/test_default_rates.py`).
    """

    free: ClassVar[str | None] = None
    """The whole-number option that sets the method's size: what a budget lock moves. None: it has none."""

    anew: ClassVar[tuple[str, ...]] = ("learning_rate", "weight_decay", "dropout")
    """Options that may be others when training goes on from what a run has learned; the rest says what that is."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of this method")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's decay; biases and LayerNorms have none")

    @property
    def free_step(self) -> int:
        """What the size must be a multiple of: M under N:M masks."""
        boost: BoostConfig | None = getattr(self, "boost", None)
        return boost.n_of_m[1] if boost and boost.n_of_m else 1


class LowRankConfig(MethodConfig):
    """Options common to the low-rank family."""

    free: ClassVar[str | None] = "rank"
    rank: int = Field(8, ge=1, le=8192, description="inner dimension r of the shared low-rank pair")
    alpha: float | None = Field(None, gt=0, le=1e6, description="scale is alpha / rank; empty: scale 1")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the module's input, one draw a branch")
    sites: SiteSelection | None = Field(None, description="adapted maps; empty: the architecture's default")
    use_rslora: bool = Field(False, description="scale alpha / sqrt(rank) instead of alpha / rank")

    @property
    def scale(self) -> float:
        alpha = self.alpha if self.alpha is not None else self.rank
        return alpha / (self.rank**0.5 if self.use_rslora else self.rank)


class BoostableConfig(LowRankConfig):
    """Options of a low-rank method that CapaBoost can go over."""

    boost: BoostConfig | None = Field(None, description="CapaBoost over this method; empty: none")


class BoostedConfig(BoostConfig):
    """CapaBoost's options as a config mixes them in."""

    @property
    def boost(self) -> BoostConfig:
        given = BoostConfig.model_fields.keys() & self.model_fields_set
        return BoostConfig(**{name: getattr(self, name) for name in given})


def chosen_sites(backbone: Backbone, selection: SiteSelection | None) -> tuple[Site, ...]:
    """The sites of a selection.

    Raises:
        InputError: the backbone has no map of these roles.
    """
    sites = backbone.sites(selection)
    if not sites:
        raise InputError("sites", selection, f"{backbone.id} has a generic plan, which knows six and all-linear alone")
    return sites
