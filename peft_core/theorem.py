"""CapaBoost's theorem (ICLR 2024, section 3), tried on random factors: rank(sum_i (B * m_Bi)(A * m_Ai)) = d r.

A (r, in) and B (out, r) are Gaussian; the masks are the project's own, drawn as the method draws them. The sum is
left @ right with left (out, d r) the masked copies of B side by side and right (d r, in) those of A one below another,
so its rank is measured from these factors. Where it is not d r, `explanation` says why.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import keyed_generator
from peft_core.metrics.rank import rank_of_factors
from peft_core.records import Frozen, InputError, Seed

LARGEST = 2**26
"""Values that the masked copies of one factor may have: 512 MiB in float64."""


class TheoremSpec(Frozen):
    """What is drawn: shape is (out, in) of the layer."""

    rank: int = Field(8, ge=1, le=8192, description="inner dimension r")
    d: int = Field(2, ge=1, le=64, description="parallel tied modules")
    sparsity: float | None = Field(None, ge=0, lt=1, description="share of zeros; empty: 0.5, or what N:M says")
    masks: str = Field("random", description="random | same | N:M such as 2:4")
    shape: tuple[int, int] = (768, 768)
    draws: int = Field(200, ge=1, le=100_000)
    seed: Seed = 0

    @field_validator("masks")
    @classmethod
    def _fixed(cls, value: str) -> str:
        if value == "dropout":
            raise InputError("masks", value, "the theorem is on masks that stay: random, same or N:M such as 2:4")
        return value

    @model_validator(mode="after")
    def _fits(self) -> TheoremSpec:
        if not all(1 <= side <= 65536 for side in self.shape):
            raise InputError("shape", "x".join(map(str, self.shape)), "its sides must be whole numbers from 1 to 65536")
        if max(self.shape) * self.d * self.rank > LARGEST:
            raise InputError("rank", self.rank, f"rank times d times the larger side must be at most {LARGEST:,}")
        self.boost  # noqa: B018  # refuses masks and sparsity that do not go together
        return self

    @property
    def boost(self) -> BoostConfig:
        given = {} if self.sparsity is None else {"sparsity": self.sparsity}
        return BoostConfig(d=self.d, masks=self.masks, **given)

    @property
    def equal_masks(self) -> bool:
        """Whether all branches have the same masks, whatever is drawn."""
        return self.d == 1 or self.masks == "same" or self.boost.density == 1


def theorem(spec: TheoremSpec) -> dict[str, Any]:
    """The share of draws of rank d r, the mean rank, and why it is less where it is (CLI.md).

    Returns: share_equal, mean_rank, least_rank, largest_rank; target: d r; bound: the rank that shape and masks leave
    possible; mean_empty: of the d r directions, those whose row of A or column of B a mask leaves without any value.

    Raises:
        InputError: N:M masks along an axis that M does not divide.
    """
    target, side = spec.d * spec.rank, min(spec.shape)
    found = [_draw(spec, number) for number in range(spec.draws)]
    ranks = [rank for rank, _ in found]
    figures: dict[str, Any] = {
        "share_equal": sum(rank == target for rank in ranks) / spec.draws,
        "mean_rank": sum(ranks) / spec.draws,
        "least_rank": min(ranks),
        "largest_rank": max(ranks),
        "target": target,
        "bound": min(spec.rank if spec.equal_masks else target, side),
        "mean_empty": sum(empty for _, empty in found) / spec.draws,
    }
    asked = spec.model_dump() | {"sparsity": spec.boost.sparsity, "shape": list(spec.shape)}
    return asked | figures | {"explanation": explanation(spec, figures)}


def _draw(spec: TheoremSpec, number: int) -> tuple[int, int]:
    """Rank of one draw, and its directions that a mask left empty."""
    (out_features, in_features), site = spec.shape, f"draw.{number}"
    right = _copies((spec.rank, in_features), spec, site, "A").flatten(0, 1)
    left = _copies((out_features, spec.rank), spec, site, "B").transpose(0, 1).flatten(1, 2)
    empty = int((~(right.any(1) & left.any(0))).sum())
    return rank_of_factors(left, right).numerical, empty


def _copies(shape: tuple[int, int], spec: TheoremSpec, site: str, role: str) -> Tensor:
    """(d, rows, cols): a Gaussian matrix under d masks, float64."""
    values = torch.randn(shape, generator=keyed_generator(spec.seed, site, role), dtype=torch.float64)
    copies: Tensor = transform(shape, spec.boost, site, role, spec.seed)(values)
    return copies


def explanation(spec: TheoremSpec, figures: dict[str, Any]) -> str:
    """Why not every draw has rank d r, in one sentence; the theorem's own words where each has."""
    target, side = figures["target"], min(spec.shape)
    if figures["share_equal"] == 1:
        return "every draw has rank d r: the masked copies of a direction point in different directions"
    if spec.equal_masks and figures["mean_rank"] == figures["bound"]:
        why = "no value is masked" if spec.boost.density == 1 else "the branches share their masks"
        return f"{why}, so the sum is d times one product and has its rank, at most r = {spec.rank}"
    if target > side and figures["mean_rank"] == side:
        return f"no {spec.shape[0]} x {spec.shape[1]} matrix has more rank than its smaller side {side}, below d r"
    if figures["mean_empty"] > 0:
        return (
            f"so few values are kept that masks leave {figures['mean_empty']:.3g} of {target} directions, in the mean,"
            " without any value in A or in B, and these add nothing; others may be combinations of the rest"
        )
    return (
        "the kept values of some directions lie in too few rows or columns, so that their masked copies are"
        " combinations of others"
    )
