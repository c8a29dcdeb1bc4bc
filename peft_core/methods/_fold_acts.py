"""What several runs do at one module of the backbone: each to its own rows of what the module gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._fold_products import Pair, multiplied, stacked
from peft_core.methods._fold_rows import Part, added_rows, folded_map
from peft_core.methods._fold_slots import Slots, Stretch, joined
from peft_core.methods._surgery import Positions, layer_norm
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


@dataclass(frozen=True)
class AtSite:
    """Weight updates at a site; members: a module and its attachment's `Positions`, by slot."""

    site: Site
    members: Mapping[int, tuple[nn.Module, Positions]]

    def updates(self, slots: Slots, x: Tensor) -> tuple[list[Part], list[tuple[int, nn.Module]]]:
        """What is multiplied together, and which modules are called by themselves, with their place in the batch."""
        taking_part = {
            slot: update for slot, (update, positions) in self.members.items() if not positions.skips(self.site, x)
        }
        pairs, kind = _kinds(slots, taking_part)
        parts, own = [], []
        for stretch in slots.stretches(kind):
            if isinstance(stretch.kind, int):
                own.append((stretch.first, taking_part[stretch.kind]))
            elif stretch.kind is not None:
                factors = stacked([pairs[slot] for slot in stretch.slots])
                parts.append(Part(stretch.first, stretch.end, self.site.offset, *factors))
        return parts, own


def map_at_sites(
    slots: Slots, sites: Sequence[AtSite], module: Any, forward: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """The forward of a frozen map with the updates of all runs that have some here.

    forward: the map's own, called where it is not that of a plain linear map.
    """
    found = [(at.site, *at.updates(slots, x)) for at in sites]
    parts = [part for _, together, _ in found for part in together]
    own = [(site, place, update) for site, _, alone in found for place, update in alone]
    if not parts and not own:
        return forward(x)
    slots.each(x)
    count, linear = len(slots.now), type(module) is nn.Linear or type(module).__name__ == "Conv1D"
    if not parts:
        y = forward(x)
    elif linear and getattr(forward, "__func__", None) is type(module).forward:
        weight = module.weight.T if sites[0].site.transposed else module.weight
        y = folded_map(x, weight, module.bias, None, count, parts)
    else:
        y = folded_map(x, None, None, forward(x), count, parts)
    return added_rows(y, count, _called(own, x, y, count), in_place=True) if own else y


def _called(
    own: Sequence[tuple[Site, int, nn.Module]], x: Tensor, y: Tensor, count: int
) -> list[tuple[int, int, Tensor]]:
    """What modules that are called by themselves add to their rows."""
    rows = x.chunk(count)
    answers = []
    for site, place, update in own:
        answer = update(rows[place])
        before, after = site.offset, y.shape[-1] - site.offset - site.out_features
        answers.append((place, place + 1, F.pad(answer, (before, after)).unsqueeze(0)))
    return answers


@dataclass(frozen=True)
class AtPlace:
    """Bottleneck adapters at a place, by slot."""

    place: AdapterPlace
    members: Mapping[int, nn.Module]

    def __call__(self, slots: Slots, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not any(slot in self.members for slot in slots.now):
            return output
        first, *others = output if isinstance(output, tuple) else (output,)
        pairs, kind = _kinds(slots, self.members)
        stretches = slots.stretches(kind)
        parts = slots.rows(first, stretches)
        answers = [
            None if stretch.kind is None else self._answer(pairs, stretch, given)
            for stretch, given in zip(stretches, parts, strict=True)
        ]
        y = self._normed(slots, stretches, parts, answers, module, args[0]) if self.place.form == "post_norm" else None
        if y is None:
            added = [
                (stretch.first, stretch.end, answer.unflatten(0, (len(stretch.slots), -1)))
                for stretch, answer in zip(stretches, answers, strict=True)
                if answer is not None
            ]
            y = added_rows(first, len(slots.now), added)
        return (y, *others) if isinstance(output, tuple) else y

    @staticmethod
    def _normed(
        slots: Slots,
        stretches: list[Stretch],
        parts: list[Tensor],
        answers: list[Tensor | None],
        module: nn.Module,
        x: Tensor,
    ) -> Tensor:
        inputs = slots.rows(x, stretches)
        return joined(
            [
                part if answer is None else layer_norm(module, given + answer)
                for part, answer, given in zip(parts, answers, inputs, strict=True)
            ]
        )

    def _answer(self, pairs: Mapping[int, Pair], stretch: Stretch, given: Tensor) -> Tensor:
        if isinstance(stretch.kind, int):
            answer: Tensor = self.members[stretch.kind](given)
            return answer
        own = [pairs[slot] for slot in stretch.slots]
        return multiplied(own, given.reshape(len(own), -1, given.shape[-1])).view(given.shape)


@dataclass(frozen=True)
class AtBias:
    """Biases of a module's own, by slot: what they differ by from the frozen one is added to what the module gives."""

    frozen: Tensor
    members: Mapping[int, Tensor]

    def __call__(self, slots: Slots, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        slots_here = [stretch for stretch in slots.stretches(lambda slot: slot in self.members) if stretch.kind]
        if not slots_here:
            return output
        slots.each(output)
        behind = module.weight.dim() - 2 if isinstance(module, CONVOLUTIONS) else 0  # type: ignore[operator]
        middle = output.dim() - behind - 1
        added = []
        for stretch in slots_here:
            differ = torch.stack([self.members[slot] for slot in stretch.slots]) - self.frozen
            added.append((stretch.first, stretch.end, differ.view(len(differ), *[1] * middle, -1, *[1] * behind)))
        return added_rows(output, len(slots.now), added, in_place=True)
