"""What several runs do at one module of the backbone: each to its own rows of what the module gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peft_core.methods._fold_products import Pair, multiplied
from peft_core.methods._fold_slots import Slots, Stretch, joined
from peft_core.methods._surgery import Positions, added_at, layer_norm
from peft_core.records import AdapterPlace, Site

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def pair_of(module: Any) -> Pair | None:
    """What a module computes, where it says so; None: it must be called itself."""
    return module.pair() if hasattr(module, "pair") else None


def _kinds(slots: Slots, members: Mapping[int, nn.Module]) -> tuple[dict[int, Pair], Callable[[int], Any]]:
    """The members' pairs by slot, and who is treated alike: None nobody's rows, a number a slot by itself."""
    found = {slot: pair_of(members[slot]) for slot in slots.now if slot in members}
    pairs = {slot: pair for slot, pair in found.items() if pair is not None}

    def kind(slot: int) -> Any:
        if slot not in found:
            return None
        return pairs[slot].kind if slot in pairs else slot

    return pairs, kind


def _nobody(slots: Slots, members: Mapping[int, Any]) -> bool:
    """Whether none of those whose rows are there has anything here."""
    return not any(slot in members for slot in slots.now)


def _flat(x: Tensor, count: int) -> Tensor:
    """(count * rows, ..., features) as (count, n, features)."""
    return x.reshape(count, -1, x.shape[-1])


@dataclass(frozen=True)
class AtSite:
    """Weight updates at a site; members: a module and its attachment's `Positions`, by slot."""

    site: Site
    members: Mapping[int, tuple[nn.Module, Positions]]

    def __call__(self, slots: Slots, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x = args[0]
        taking_part = {
            slot: update for slot, (update, positions) in self.members.items() if not positions.skips(self.site, x)
        }
        pairs, kind = _kinds(slots, taking_part)
        if _nobody(slots, taking_part):
            return output
        parts = []
        for stretch in slots.stretches(kind):
            given, own = slots.rows(output, stretch), slots.rows(x, stretch)
            if stretch.kind is None:
                parts.append(given)
            elif isinstance(stretch.kind, int):
                parts.append(added_at(self.site, given, taking_part[stretch.kind](own)))
            else:
                parts.append(self._together([pairs[slot] for slot in stretch.slots], own, given))
        return joined(parts)

    def _together(self, pairs: list[Pair], x: Tensor, output: Tensor) -> Tensor:
        count = len(pairs)
        if output.shape[-1] == self.site.out_features:
            return multiplied(pairs, _flat(x, count), _flat(output, count)).view(output.shape)
        return added_at(self.site, output, multiplied(pairs, _flat(x, count)).view(*output.shape[:-1], -1))


@dataclass(frozen=True)
class AtPlace:
    """Bottleneck adapters at a place, by slot."""

    place: AdapterPlace
    members: Mapping[int, nn.Module]

    def __call__(self, slots: Slots, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        first, *others = output if isinstance(output, tuple) else (output,)
        pairs, kind = _kinds(slots, self.members)
        if _nobody(slots, self.members):
            return output
        parts = []
        for stretch in slots.stretches(kind):
            given = slots.rows(first, stretch)
            if stretch.kind is None:
                parts.append(given)
                continue
            answer = self._answer(pairs, stretch, given)
            if self.place.form == "post_norm":
                parts.append(layer_norm(module, slots.rows(args[0], stretch) + answer))
            else:
                parts.append(given + answer)
        return (joined(parts), *others) if isinstance(output, tuple) else joined(parts)

    def _answer(self, pairs: Mapping[int, Pair], stretch: Stretch, given: Tensor) -> Tensor:
        if isinstance(stretch.kind, int):
            answer: Tensor = self.members[stretch.kind](given)
            return answer
        own = [pairs[slot] for slot in stretch.slots]
        return multiplied(own, _flat(given, len(own))).view(given.shape)


@dataclass(frozen=True)
class AtBias:
    """Biases of a module's own, by slot: what they differ by from the frozen one is added to what the module gives."""

    frozen: Tensor
    members: Mapping[int, Tensor]

    def __call__(self, slots: Slots, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if _nobody(slots, self.members):
            return output
        inner = module.weight.dim() - 2 if isinstance(module, CONVOLUTIONS) else 0
        parts = []
        for stretch in slots.stretches(lambda slot: slot in self.members):
            given = slots.rows(output, stretch)
            if stretch.kind:
                differ = torch.stack([self.members[slot] - self.frozen for slot in stretch.slots])
                features = given.shape[given.dim() - inner - 1 :]
                by_slot = given.reshape(len(differ), -1, *features)
                given = (by_slot + differ.view(len(differ), 1, -1, *[1] * inner)).view(given.shape)
            parts.append(given)
        return joined(parts)
