"""AdaMix: A(u) = U_j phi(V_i u + b_Vi) + b_Uj, experts i and j drawn at random; at evaluation their average.

Wang et al. 2022, "AdaMix: Mixture-of-Adaptations for Parameter-efficient Model Tuning", arXiv 2205.12410 (recalled).
Experts of a place start equal, as in the authors' code, on Pfeiffer's places. For every place and step a down expert
and an up expert are drawn, twice; two passes follow the two routes. The task loss is that of the first pass; added is
(KL(p || q) + KL(q || p)) / 2 of their predictions p, q, for regression the mean squared error. Experts that no route
takes in a step still move by AdamW's momentum and decay. What trains is `experts` adapters a place; stored is one.
Where paper and authors' code differ: the code stops the gradient through the target of each divergence and measures
regression by the same divergence (zero for one output); here the gradient flows through both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from peft_core.methods._adapters import AdapterConfig
from peft_core.methods._contract import Attached, Group, Method, SecondPass, WeightUpdate
from peft_core.methods._masks import stream
from peft_core.methods._modules import NONLINEARITIES, keyed_generator
from peft_core.records import AdapterPlace, Backbone, InputError

ROLES = ("V", "U", "b_V", "b_U")


class Config(AdapterConfig):
    """Options of AdaMix."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")
    experts: int = Field(4, ge=1, le=64, description="adapters that train at every place; their average is stored")


class Experts(nn.Module):
    """V (E, bn, h), U (E, h, bn), b_V (E, bn), b_U (E, h): E adapters that start equal.

    Args:
        key: what routes depend on beside the step: the seed and the place.
    """

    def __init__(self, down: Tensor, up: Tensor, experts: int, nonlinearity: str, *key: object) -> None:
        super().__init__()
        first = (down, up, torch.zeros(len(down)), torch.zeros(len(up)))
        for role, value in zip(ROLES, first, strict=True):
            self.register_parameter(role, nn.Parameter(value.expand(experts, *value.shape).clone()))
        self.experts, self.phi, self._key = experts, NONLINEARITIES[nonlinearity], key
        self.view = 0
        self.draw(0)

    def draw(self, step: int) -> None:
        """The routes of a step: a down and an up expert for each of the two passes."""
        self.routes = tuple(
            tuple(stream(*self._key, "route", step, view, end) % self.experts for end in ("down", "up"))
            for view in (0, 1)
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """V, U, b_V and b_U of the current route, or at evaluation of the average."""
        stacks = [self.get_parameter(role) for role in ROLES]
        if not self.training:
            return tuple(average(stack) for stack in stacks)
        down, up = self.routes[self.view]
        return stacks[0][down], stacks[1][up], stacks[2][down], stacks[3][up]

    def forward(self, u: Tensor) -> Tensor:
        """u (..., h) to (..., h)."""
        down, up, bias_in, bias_out = self.tensors()
        return F.linear(self.phi(F.linear(u, down, bias_in)), up, bias_out)


def average(stack: Tensor) -> Tensor:
    """Mean over the first axis; of equal entries exactly that entry."""
    return stack[0] + (stack - stack[0]).mean(0)


def consistency(first: Tensor, second: Tensor, classes: bool) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2 of two passes' class scores (rows, classes), the mean over rows; else MSE."""
    first, second = first.float(), second.float()
    if not classes:
        return F.mse_loss(first, second)
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean() / 2


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """A mixture of adapters after every feed-forward block.

    Raises:
        InputError: the backbone has no place for it.
    """
    attached = Attached(backbone, generator.initial_seed())
    places = backbone.adapter_places("pfeiffer")
    if not places:
        raise InputError("method", METHOD.id, f"{backbone.id} has no place for this kind of adapter")
    mixtures: list[tuple[AdapterPlace, Experts]] = []
    for place in places:
        module = _experts(place, backbone, config, attached.seed)
        attached.add_at_place(place, module)
        for role in ROLES:
            _count(attached, place, role)
        mixtures.append((place, module))

    def route(view: int) -> None:
        for _, module in mixtures:
            module.view = view

    stacks = {f"{place.name}.{role}" for place, _ in mixtures for role in ROLES}
    attached.second_pass = SecondPass(route, consistency)
    attached.pack = lambda tensors: {
        name: average(value).contiguous() if name in stacks else value for name, value in tensors.items()
    }
    attached.unpack = lambda tensors: {
        name: value.expand(config.experts, *value.shape) if name in stacks else value for name, value in tensors.items()
    }
    attached.updates = lambda: [_linear_map(place, module) for place, module in mixtures]
    return attached


def _experts(place: AdapterPlace, backbone: Backbone, config: Config, seed: int) -> Experts:
    std, phi = backbone.adapter_defaults.std, config.nonlinearity or backbone.adapter_defaults.nonlinearity
    down, up = (
        nn.init.normal_(torch.empty(shape), std=std, generator=keyed_generator(seed, place.name, role))
        for role, shape in (("V", (config.bottleneck, place.width)), ("U", (place.width, config.bottleneck)))
    )
    return Experts(down, up, config.experts, phi, seed, place.name)


def _count(attached: Attached, place: AdapterPlace, role: str) -> None:
    """All experts train; one is multiplied in a pass, and their average is stored. Biases have no weight decay."""
    stack = attached.modules[place.name].get_parameter(role)
    one, bias = stack[0].numel(), stack.dim() == 2
    differs: dict[str, Any] = {"multiplied": one, "stored": one, "nominal_stored": float(one)}
    if bias:
        differs |= {"rows": one, "cols": 1, "is_bias": True}
        attached.groups[f"adapter.{place.name}.{role}"] = Group(decay=0.0)
    attached.add_tensor(place.name, role, None, place.name, in_product=not bias, **differs)


def _linear_map(place: AdapterPlace, module: Experts) -> WeightUpdate:
    """Of the average, which is what is evaluated and stored."""
    left, right = average(module.get_parameter("U")), average(module.get_parameter("V"))
    bound = min(right.shape[0], place.width)
    return WeightUpdate(place.name, place.layer, place.after, bound, left=left, right=right, kind="linear_map")


METHOD = Method(
    id="adamix",
    title="AdaMix",
    family="adapter",
    source="Wang et al. 2022 (arXiv 2205.12410)",
    Config=Config,
    attach=attach,
    zero_init=False,
)
