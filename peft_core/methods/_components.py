"""The module that grows: components a, b, lambda of one adapted map, active ones first, then those in reserve."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._importance import absolute_product_sum
from peft_core.methods._masks import BoostConfig, WeightTransform, transform
from peft_core.methods._modules import KeyedDropout, keyed_generator
from peft_core.metrics.parameters import TensorCount
from peft_core.records import Site

STD = 0.02
RESERVE = 1e-5
"""lambda of a component in reserve, and what is added to the rank that alpha is divided by."""


def masks_of(site: Site, index: int, boost: BoostConfig | None, seed: int) -> tuple[WeightTransform, WeightTransform]:
    """The transforms of a component's a (1, in) and b (out, 1), keyed by the component."""
    return (
        transform((1, site.in_features), boost, site.name, f"A.{index}", seed),
        transform((site.out_features, 1), boost, site.name, f"B.{index}", seed),
    )


class Component(nn.Module):
    """One component: a (1, in) and b (out, 1) ~ N(0, 0.02^2), lambda (1,).

    lambda (`gate`) is a buffer while the component is in reserve, and a parameter from its activation on.
    """

    gate: Tensor

    def __init__(self, site: Site, index: int, boost: BoostConfig | None, seed: int, gate: float, trains: bool) -> None:
        super().__init__()
        self.mask_A, self.mask_B = masks_of(site, index, boost, seed)
        self.A = nn.Parameter(_normal((1, site.in_features), seed, site.name, "A", index), trains)
        self.B = nn.Parameter(_normal((site.out_features, 1), seed, site.name, "B", index), trains)
        self.register_buffer("gate", torch.full((1,), gate))

    def activate(self) -> None:
        """From now on all three train; lambda keeps its value."""
        value = self.gate.clone()
        del self.gate
        self.gate = nn.Parameter(value)
        self.requires_grad_(True)


def _normal(shape: tuple[int, int], *key: object) -> Tensor:
    return torch.empty(shape).normal_(0, STD, generator=keyed_generator(*key))


class GrowingTriples(nn.Module):
    """y += alpha / (r + 1e-5) sum_i lambda_i b_i a_i drop(x) over r active components and those in reserve.

    The divisor is the active rank now, so what has been learned shrinks whenever the rank grows. Under CapaBoost every
    component has masks of its own; all branches see one draw of the dropout.

    Args:
        advance: reserves train before they are activated, at lambda 1e-5; else they rest, at lambda 0.
    """

    def __init__(
        self, site: Site, alpha: float, advance: bool, boost: BoostConfig | None, seed: int, dropout: KeyedDropout
    ) -> None:
        super().__init__()
        self.site, self.alpha, self.advance, self.boost, self.seed = site, alpha, advance, boost, seed
        self.dropout = dropout
        self.largest = min(site.in_features, site.out_features)
        self.components = nn.ModuleList([Component(site, 0, boost, seed, 0.0, trains=True)])
        self.parts[0].activate()
        self.rank = 1
        self.reserve_works = advance
        self.watched = False
        self._uses: list[tuple[Tensor, Tensor]] = []

    # --- growth ---

    @property
    def parts(self) -> list[Component]:
        """All components, in the order in which they came."""
        return [part for part in self.components if isinstance(part, Component)]

    def add_reserve(self, count: int) -> list[str]:
        """Adds components in reserve. Returns the names of what now trains."""
        names = []
        for index in range(len(self.components), len(self.components) + count):
            gate = RESERVE if self.advance else 0.0
            fresh = Component(self.site, index, self.boost, self.seed, gate, trains=self.advance)
            self.components.append(fresh.to(self.parts[0].A.device))
            names += [f"components.{index}.{role}" for role in ("A", "B")] if self.advance else []
        return names

    def activate(self, count: int) -> list[str]:
        """The oldest reserves become active. Returns the names of what trains only from now on."""
        names = []
        for index in range(self.rank, self.rank + count):
            self.parts[index].activate()
            names += [f"components.{index}.{role}" for role in (("gate",) if self.advance else ("A", "B", "gate"))]
        self.rank += count
        return names

    def silence_reserve(self) -> None:
        """Sets the reserves' lambda to 0: they leave the forward pass, and only the penalty still moves them."""
        self.reserve_works = False
        for part in self.parts[self.rank :]:
            part.gate.zero_()

    def reset(self) -> None:
        """Back to one component."""
        del self.components[1:]
        self.rank, self.reserve_works = 1, self.advance
        self._uses.clear()

    # --- the update ---

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank + RESERVE)

    @property
    def branches(self) -> int:
        return self.parts[0].mask_A.copies

    def _working(self) -> list[Component]:
        return self.parts if self.reserve_works else self.parts[: self.rank]

    def left(self, parts: Sequence[Component]) -> Tensor:
        """(out, d R), scale included: the masked copies of B, one beside the other."""
        return torch.cat([part.mask_B(part.B) for part in parts], 2).transpose(0, 1).flatten(1, 2) * self.scale

    def right(self, parts: Sequence[Component]) -> Tensor:
        """(d R, in): the masked copies of A, one below the other, times lambda."""
        gates = torch.cat([part.gate for part in parts]).unsqueeze(1)
        return (torch.cat([part.mask_A(part.A) for part in parts], 1) * gates).flatten(0, 1)

    def factors(self) -> tuple[Tensor, Tensor]:
        """left (out, d r) and right (d r, in) of the active components."""
        active = self.parts[: self.rank]
        return self.left(active), self.right(active)

    def stacked(self) -> tuple[Tensor, Tensor]:
        """A (R, in) and B (out, R) without masks, reserves included: what the penalty is taken of."""
        return torch.cat([part.A for part in self.parts]), torch.cat([part.B for part in self.parts], 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) to the update's output (..., out)."""
        parts, x = self._working(), self.dropout(x)
        y = F.linear(F.linear(x, self.right(parts)), self.left(parts))
        if self.watched and self.training and y.requires_grad:
            y.register_hook(partial(self._keep, x.detach()))
        return y

    def draw(self, step: int) -> None:
        """Starts a step: fresh masks where the kind asks for them, and nothing captured yet."""
        self._uses.clear()
        for part in self.parts:
            part.mask_A.draw(step)
            part.mask_B.draw(step)

    # --- what growth and counting need ---

    def _keep(self, x: Tensor, gradient: Tensor) -> None:
        self._uses.append((x, gradient.detach()))

    @torch.no_grad()
    def sensitivity(self) -> Tensor:
        """Sum of |Delta W * dL/dDelta W| over all values, the gradient summed over all uses since the step began."""
        parts = self._working()
        total = absolute_product_sum(self.left(parts), self.right(parts), self._uses)
        self._uses.clear()
        return total

    def active_parameters(self) -> int:
        """Values of the active components that some mask keeps, lambda included."""
        return sum(1 + part.mask_A.kept + part.mask_B.kept for part in self.parts[: self.rank])

    def counts(self) -> list[TensorCount]:
        """Active components count in full, reserves at work in the FLOPs executed alone: no paper counts them."""
        transforms = [(part.mask_A, part.mask_B) for part in self.parts]
        idle = len(transforms) - self.rank if self.reserve_works else 0
        return triple_counts(self.site, transforms[: self.rank], idle)


def triple_counts(
    site: Site, transforms: Sequence[tuple[WeightTransform, WeightTransform]], idle: int = 0
) -> list[TensorCount]:
    """Counts of A (r, in), B (out, r) and lambda (r,) of r components; `idle` more only multiply."""
    entries = []
    size = len(transforms)
    shapes = {"A": (site.in_features, True), "B": (site.out_features, False)}
    for position, (role, (width, wide)) in enumerate(shapes.items()):
        parts = [pair[position] for pair in transforms]
        for name, rank, members in ((role, size, parts), (f"{role}.reserve", idle, [])):
            if not rank:
                continue
            entries.append(
                TensorCount(
                    name=f"{site.name}.{name}",
                    site=site.name,
                    role=name,
                    rows=rank if wide else width,
                    cols=width if wide else rank,
                    is_bias=False,
                    copies=parts[0].copies,
                    kept=sum(part.kept for part in members),
                    nominal_kept=sum(part.nominal_kept for part in members),
                    multiplied=sum(part.multiplied for part in members),
                    seed_bits=64 if parts[0].seeded else 0,
                )
            )
    gate = TensorCount(
        f"{site.name}.gate", site.name, "gate", size, 1, True, 1, size, float(size), size, in_product=False
    )
    return [*entries, gate]
