"""Several runs' own copies of a frozen module's parameters: a head's weights, biases that train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._fold_acts import CONVOLUTIONS, AtBias
from peft_core.methods._fold_slots import Slots

OwnParameters = Mapping[str, Tensor]
Owners = Mapping[str, list[tuple[nn.Module, str]]]


def _is_transposed(module: nn.Module) -> bool:
    """transformers' Conv1D: a linear map with its weight as (in, out)."""
    return type(module).__name__ == "Conv1D"


def can_differ(module: nn.Module, role: str) -> bool:
    """Whether a fold knows how runs can each have a `role` (weight, bias) of their own in such a module."""
    whole = isinstance(module, nn.Linear | nn.LayerNorm) or _is_transposed(module)
    return (role in ("weight", "bias") and whole) or (role == "bias" and isinstance(module, CONVOLUTIONS))


@dataclass
class Own:
    """A frozen module and the parameters that stand in for its own: by role and slot."""

    module: nn.Module
    roles: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def bias(self) -> AtBias | None:
        """What happens at its output where nothing but biases differs; None where weights do."""
        if self.roles.keys() != {"bias"}:
            return None
        return AtBias(self.module.get_parameter("bias"), self.roles["bias"])

    def forward(self, slots: Slots) -> Callable[[Tensor], Tensor]:
        """Its forward with every slot's own weights."""
        return partial(_forward, self, slots)

    def stacked(self, role: str, slots: Iterable[int]) -> Tensor | None:
        """(slots, ...), the frozen one where a slot has none; None where the module has none."""
        frozen = self.module._parameters.get(role)
        if frozen is None:
            return None
        own = self.roles.get(role, {})
        return torch.stack([own.get(slot, frozen) for slot in slots])


def own_parameters(by_slot: Iterable[tuple[OwnParameters, Owners]]) -> list[Own]:
    """All modules of which some slot has parameters of its own. Each entry: parameters by name, and where names are."""
    found: dict[int, Own] = {}
    for slot, (parameters, owners) in enumerate(by_slot):
        for name, parameter in parameters.items():
            for module, role in owners[name]:
                own = found.setdefault(id(module), Own(module))
                own.roles.setdefault(role, {})[slot] = parameter
    return list(found.values())


def _forward(own: Own, slots: Slots, x: Tensor) -> Tensor:
    """x (slots * rows, ..., in) to (slots * rows, ..., out)."""
    slots.each(x)
    module, weight, bias = own.module, own.stacked("weight", slots.now), own.stacked("bias", slots.now)
    assert weight is not None
    if isinstance(module, nn.LayerNorm):
        y = F.layer_norm(x, module.normalized_shape, eps=module.eps).reshape(len(weight), -1, weight.shape[-1])
        y = y * weight.unsqueeze(1)
        return (y if bias is None else y + bias.unsqueeze(1)).view(x.shape)
    flat, map_ = x.reshape(len(weight), -1, x.shape[-1]), weight if _is_transposed(module) else weight.mT
    y = torch.bmm(flat, map_) if bias is None else torch.baddbmm(bias.unsqueeze(1), flat, map_)
    return y.view(*x.shape[:-1], -1)
