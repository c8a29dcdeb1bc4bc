"""What makes IncreLoRA's maps grow: it scores them, lets the best ones grow, and stores and restores their sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peft_core.methods._components import Component, GrowingTriples
from peft_core.methods._contract import Attached, Group
from peft_core.methods._growth import GrowthPlan, GrowthSchedule, choose
from peft_core.methods._importance import Importance
from peft_core.records import InputError

SCORE = "delta"
ROLES = {"A": 0, "B": 1, "gate": 0}
"""The tensors of a component, and the axis along which components lie when they are stored together."""


class Allocator:
    """Scores all maps in every step and lets the best of them grow, until the sum of the ranks is the target.

    What has happened is a list of rounds; a fresh attachment replays it when a run is resumed. The scores' state is in
    buffers of the modules. A new parameter's clock starts in the step of its round and rises over one interval, which
    the paper sets equal to the warm-up.

    Args:
        betas: smoothing of the sensitivity and of its uncertainty.
        mean: the mean over |Delta W * G|; else its sum / sqrt(in out), which favours large maps, as the code has it.
        restart: every new parameter has a clock of its own; else all follow the run's.
    """

    def __init__(
        self, attached: Attached, plan: GrowthPlan, betas: tuple[float, float], mean: bool, restart: bool
    ) -> None:
        self.attached, self.plan, self.mean, self.restart = attached, plan, mean, restart
        self.modules = {name: module for name, module in attached.modules.items() if isinstance(module, GrowingTriples)}
        self.target = plan.target_rank * len(self.modules)
        self.schedule: GrowthSchedule | None = None
        self.rounds: list[tuple[int, dict[str, int]]] = []
        self.reserved = self.done = False
        self.stored: dict[str, int] = {}
        for module in self.modules.values():
            module.watched = True
            module.add_module("importance", Importance({SCORE: torch.Size(())}, *betas).to(attached.device))

    @property
    def total(self) -> int:
        """Sum of the active ranks."""
        return sum(module.rank for module in self.modules.values())

    def start(self, total_steps: int) -> None:
        self.schedule = GrowthSchedule(self.plan, len(self.modules), total_steps)

    @torch.no_grad()
    def before_update(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Reserves at step 0; then scores and growth; one step after the target was reached, the end."""
        assert self.schedule is not None
        if self.done:
            return
        growing = self.total < self.target
        scores = [self._scored(module) for module in self.modules.values()] if growing else []
        if not self.reserved:
            self._reserve(step)
        if growing and self.schedule.grows(step):
            self._grow_best(step, torch.stack(scores).tolist())
            while step >= self.schedule.last and self.total < self.target:
                self._grow_best(step, torch.stack(scores).tolist())
        elif not growing:
            self._finish()

    def _scored(self, module: GrowingTriples) -> Tensor:
        """Takes in S of this step and gives I U (IncreLoRA, eqs. 5 to 8)."""
        size = module.site.in_features * module.site.out_features
        importance = module.get_submodule("importance")
        assert isinstance(importance, Importance)
        importance.update(SCORE, module.sensitivity() / (size if self.mean else math.sqrt(size)))
        return importance.score(SCORE)

    def _grow_best(self, step: int, scores: list[float]) -> None:
        assert self.schedule is not None
        free = [module.largest - module.rank for module in self.modules.values()]
        gains = choose(scores, self.schedule.top_h, self.plan.reserve, self.target - self.total, free)
        names = list(self.modules)
        self._grow(step, {names[index]: gain for index, gain in gains.items()})

    def _reserve(self, step: int) -> None:
        self.reserved = True
        for site, module in self.modules.items():
            self._born(step, site, module.add_reserve(self.plan.reserve))
        self.count()

    def _grow(self, step: int, gains: Mapping[str, int]) -> None:
        self.rounds.append((step, dict(gains)))
        for site, gain in gains.items():
            module = self.modules[site]
            self._born(step, site, module.activate(gain) + module.add_reserve(gain))
        self.count()

    def _finish(self) -> None:
        self.done = True
        for module in self.modules.values():
            module.watched = False
            module.silence_reserve()
        self.count()

    def _born(self, step: int, site: str, names: list[str]) -> None:
        if self.restart and self.schedule is not None:
            group = Group(born=step, warmup=self.schedule.interval)
            self.attached.groups |= {f"adapter.{site}.{name}": group for name in names}

    def count(self) -> None:
        self.attached.counts[:] = [entry for module in self.modules.values() for entry in module.counts()]

    # --- saving and loading ---

    def extra_state(self) -> dict[str, Any]:
        return {
            "reserved": self.reserved,
            "rounds": list(self.rounds),
            "done": self.done,
            **({"stored": dict(self.stored)} if self.stored else {}),
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Grows as the run had grown, or as large as it was stored; the parameters' values come afterwards."""
        self._reset()
        if state.get("stored"):
            self._restore(state["stored"])
            return
        if state["reserved"]:
            self._reserve(0)
        for step, gains in state["rounds"]:
            self._grow(step, gains)
        if state["done"]:
            with torch.no_grad():
                self._finish()

    def _reset(self) -> None:
        self.rounds, self.reserved, self.done, self.stored = [], False, False, {}
        self.attached.groups.clear()
        for module in self.modules.values():
            module.watched = True
            module.reset()

    def pack(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of every map the active components, as A (r, in), B (out, r) and gate (r,); masked ones as kept values."""
        packed = {}
        for site, module in self.modules.items():
            for role, axis in ROLES.items():
                values = [tensors[f"{site}.components.{index}.{role}"] for index in range(module.rank)]
                unions = [_union(part, role) for part in module.parts]
                if unions[0] is None:
                    packed[f"{site}.{role}"] = torch.cat(values, axis)
                else:
                    pairs = zip(values, unions, strict=False)
                    packed[f"{site}.{role}"] = torch.cat([value[kept] for value, kept in pairs])
        return packed

    def unpack(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Grows every map to the rank it was stored with, without reserves, and gives each component its values.

        Raises:
            InputError: a tensor is missing or of another size.
        """
        self._reset()
        given, ranks = dict(tensors), dict[str, int]()
        for site in self.modules:
            ranks[site] = rank = given.get(f"{site}.gate", torch.empty(0)).numel()
            if not 1 <= rank <= given.get(f"{site}.A", torch.empty(0)).numel():
                raise InputError("adapter", site, "its tensors must be exactly those of the method and its options")
        self._restore(ranks)
        for site, module in self.modules.items():
            stored = {role: given.pop(f"{site}.{role}", torch.empty(0)) for role in ROLES}
            for role, axis in ROLES.items():
                for index, value in enumerate(_split(f"{site}.{role}", module, role, axis, stored[role])):
                    given[f"{site}.components.{index}.{role}"] = value
        return given

    def _restore(self, ranks: Mapping[str, int]) -> None:
        """Every map at the rank that it was stored with; nothing grows any more."""
        for site, rank in ranks.items():
            module = self.modules[site]
            module.add_reserve(rank - 1)
            module.activate(rank - 1)
            module.watched = False
        self.stored, self.done = dict(ranks), True
        self.count()


def _union(part: Component, role: str) -> Tensor | None:
    """bool, of the tensor's shape: its values that some mask keeps; None for all."""
    if role == "gate":
        return None
    union = (part.mask_A if role == "A" else part.mask_B).union()
    return union.cpu() if union is not None else None


def _split(name: str, module: GrowingTriples, role: str, axis: int, stored: Tensor) -> list[Tensor]:
    """What each component of a map is given of a stored tensor."""
    parts = module.parts
    unions = [_union(part, role) for part in parts]
    like = [getattr(part, role) for part in parts]
    sizes = [int(kept.sum()) if kept is not None else value.numel() for kept, value in zip(unions, like, strict=True)]
    if stored.numel() != sum(sizes):
        raise InputError("adapter", name, f"it must hold {sum(sizes)} values, not {stored.numel()}")
    if unions[0] is None:
        shape = [*like[0].shape]
        shape[axis] = len(parts)
        return list(stored.reshape(shape).split(1, axis))
    pieces = zip(unions, stored.flatten().split(sizes), strict=True)
    return [torch.zeros(kept.shape).masked_scatter(kept, piece) for kept, piece in pieces if kept is not None]
