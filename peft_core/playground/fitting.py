"""What is fitted: pairs under masks, and ranks that give them equally many parameters."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator, model_validator

from peft_core.methods import BoostConfig
from peft_core.playground.sketch import LARGEST_RANK, LARGEST_SPARSITY, MOST_BRANCHES
from peft_core.playground.targets import TargetKind
from peft_core.records import Frozen, InputError, Seed

MOST_DIRECTIONS = 512
"""d r of all pairs together: what is fitted within seconds."""


class FitPair(Frozen):
    """LoRA's pair where nothing is masked, CapaBoost's where something is; training them is one and the same code."""

    rank: int = Field(8, ge=1, le=LARGEST_RANK, description="inner dimension r")
    d: int = Field(1, ge=1, le=MOST_BRANCHES, description="parallel tied branches")
    sparsity: float = Field(0.0, ge=0, le=LARGEST_SPARSITY, description="share of zeros in a mask; N:M masks decide")
    masks: str = Field("random", max_length=7, description="random | same | N:M such as 2:4")

    @field_validator("masks")
    @classmethod
    def _stays(cls, value: str) -> str:
        if value == "dropout":
            raise InputError("masks", value, "it must be masks that stay: random, same or N:M such as 2:4")
        BoostConfig(masks=value)
        return value

    @property
    def boost(self) -> BoostConfig | None:
        """The options that draw the masks; None for a plain pair."""
        if ":" in self.masks:
            return BoostConfig(d=self.d, masks=self.masks)
        plain = self.d == 1 and self.sparsity == 0
        return None if plain else BoostConfig(d=self.d, sparsity=self.sparsity, masks=self.masks)

    @property
    def kept_share(self) -> float:
        """Share of values that some mask keeps."""
        return self.boost.nominal_share() if self.boost else 1.0

    @property
    def largest_rank(self) -> int:
        """The rank that the pair can reach where the layer has room."""
        differ = self.boost is not None and self.masks != "same" and self.boost.density < 1
        return self.d * self.rank if differ else self.rank

    @property
    def label(self) -> str:
        if self.boost is None:
            return f"LoRA r={self.rank}"
        zeros = self.masks if ":" in self.masks else f"s={self.sparsity:g}"
        same = " same masks" if self.masks == "same" else ""
        return f"CapaBoost r={self.rank} d={self.d} {zeros}{same}"


class FitSpec(Frozen):
    """A fit: which target and which pairs. size: side of a square target; target_rank: of the flat one.

    equal: ranks of all pairs but the first are moved to where they have as many parameters as it.
    """

    target: TargetKind = "flat"
    target_rank: int = Field(16, ge=1, le=128)
    size: int = Field(128, ge=16, le=256)
    seed: Seed = 0
    pairs: tuple[FitPair, ...] = Field(min_length=1, max_length=12)
    equal: bool = False

    @model_validator(mode="after")
    def _fits(self) -> FitSpec:
        if self.target_rank > self.size:
            raise InputError("target_rank", self.target_rank, f"it must be at most the side, {self.size}")
        return self


def ranks_at_equal_parameters(pairs: Sequence[FitPair]) -> list[FitPair]:
    """The pairs with the ranks at which they keep as many values as the first, as nearly as whole ranks allow.

    A pair keeps r (out + in) times its kept share, so the layer does not matter.
    """
    wanted = pairs[0].rank * pairs[0].kept_share
    return [pairs[0], *(_with_rank(pair, wanted / pair.kept_share) for pair in pairs[1:])]


def _with_rank(pair: FitPair, rank: float) -> FitPair:
    group = pair.boost.n_of_m[1] if pair.boost and pair.boost.n_of_m else 1
    steps = min(max(round(rank / group), 1), LARGEST_RANK // group)
    return pair.model_copy(update={"rank": steps * group})


def check_room(pairs: Sequence[FitPair]) -> None:
    """Refuses pairs that would take too long together: InputError."""
    together = sum(pair.d * pair.rank for pair in pairs)
    if together > MOST_DIRECTIONS:
        allowed = f"d times r of all methods together must be at most {MOST_DIRECTIONS}"
        raise InputError("pairs", f"{together} directions", allowed)
