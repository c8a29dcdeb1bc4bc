"""What the playground's sliders say, and values from outside brought into their range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from peft_core.methods import BoostConfig
from peft_core.records import Frozen, InputError, Seed, checked

SMALLEST_SIDE, LARGEST_SIDE = 8, 768
LARGEST_RANK, MOST_BRANCHES = 64, 8
LARGEST_SPARSITY = 0.99
BOUNDS = {"rank": (1, LARGEST_RANK), "d": (1, MOST_BRANCHES), "sparsity": (0.0, LARGEST_SPARSITY)}
NAMES = {"rank": "r", "sparsity": "s", "out_features": "out", "in_features": "in"}
SIDES = ("out_features", "in_features")


class Sketch(Frozen):
    """One pair B (out, r), A (r, in) under d masks: ΔW = sum_i (B * m_Bi)(A * m_Ai), as CapaBoost's eq. 3.

    sides: which factor is masked; the other one is the same in every branch. With N:M masks the pattern says how
    sparse they are, and with none nothing is.
    """

    rank: int = Field(8, ge=1, le=LARGEST_RANK, description="inner dimension r")
    d: int = Field(2, ge=1, le=MOST_BRANCHES, description="parallel tied branches")
    sparsity: float = Field(0.5, ge=0, le=LARGEST_SPARSITY, description="share of zeros in a mask")
    masks: str = Field("random", max_length=7, description="random | same | none | N:M such as 2:4")
    sides: Literal["both", "A", "B"] = Field("both", description="which factor is masked")
    out_features: int = Field(768, ge=SMALLEST_SIDE, le=LARGEST_SIDE, description="rows of the layer")
    in_features: int = Field(768, ge=SMALLEST_SIDE, le=LARGEST_SIDE, description="columns of the layer")
    seed: Seed = 0

    @field_validator("masks")
    @classmethod
    def _stays(cls, value: str) -> str:
        if value == "dropout":
            raise InputError("masks", value, "it must be masks that stay: random, same, none or N:M such as 2:4")
        if value != "none":
            BoostConfig(masks=value)
        return value

    @model_validator(mode="after")
    def _pattern_decides(self) -> Sketch:
        if self.boost is not None and self.boost.n_of_m:
            for side, (name, length) in self._contracted().items():
                if side in self.masked and length % self.boost.n_of_m[1]:
                    raise InputError("masks", self.masks, f"M must divide {NAMES.get(name, name)} = {length}")
        return self

    @property
    def boost(self) -> BoostConfig | None:
        """The options that draw the masks; None where nothing is masked."""
        if self.masks == "none":
            return None
        config = BoostConfig(d=self.d, masks=self.masks) if ":" in self.masks else None
        return config or BoostConfig(d=self.d, sparsity=self.sparsity, masks=self.masks)

    @property
    def zeros(self) -> float:
        """Share of zeros in a mask: s."""
        return 0.0 if self.boost is None else 1 - self.boost.density

    @property
    def masked(self) -> tuple[str, ...]:
        """The factors that are masked."""
        if self.boost is None:
            return ()
        return ("A", "B") if self.sides == "both" else (self.sides,)

    @property
    def shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    @property
    def branches_differ(self) -> bool:
        """Whether the branches can add rank: both factors are under masks that differ from branch to branch."""
        return self.d > 1 and self.masked == ("A", "B") and self.masks != "same" and self.zeros > 0

    @property
    def bound(self) -> int:
        """The rank that shape and masks leave possible.

        Where one factor alone is masked the sum is one product, sum_i B (A * m_i) = B (A * sum_i m_i).
        """
        return min(self.d * self.rank if self.branches_differ else self.rank, *self.shape)

    def _contracted(self) -> dict[str, tuple[str, int]]:
        """By factor the axis along which N:M masks lie."""
        return {"A": ("in_features", self.in_features), "B": ("rank", self.rank)}


def clamped(values: Mapping[str, Any]) -> tuple[Sketch, list[str]]:
    """A sketch from values of a page, each brought into its range, and a sentence for every one that was moved.

    With N:M masks the inner sides are rounded up to a multiple of M, and the sparsity is left to the pattern.

    Raises:
        InputError: a value of another kind, or a name that does not exist.
    """
    given, notes = dict(values), list[str]()
    for name, (low, high) in (BOUNDS | dict.fromkeys(SIDES, (SMALLEST_SIDE, LARGEST_SIDE))).items():
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or low <= value <= high or value != value:
            continue
        given[name] = low if value < low else high
        notes.append(f"{NAMES.get(name, name)} was set to {given[name]:g}: it goes from {low:g} to {high:g} here.")
    given = _divided(given, notes)
    return checked(Sketch, given), notes


def _divided(given: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The same with inner sides that M divides, where masks are N:M."""
    masks = given.get("masks", "")
    if not isinstance(masks, str) or ":" not in masks:
        return given
    pattern = checked(BoostConfig, {"masks": masks}).n_of_m
    group, sides = pattern[1] if pattern else 1, given.get("sides", "both")
    for name, factor in (("in_features", "A"), ("rank", "B")):
        value = given.get(name, Sketch.model_fields[name].default)
        if sides not in ("both", factor) or not isinstance(value, int) or value % group == 0:
            continue
        high = LARGEST_RANK if name == "rank" else LARGEST_SIDE
        given[name] = min(-(-value // group), high // group) * group
        notes.append(f"{NAMES[name]} was set to {given[name]}: {masks} masks lie along it, and {group} must divide it.")
    return given
