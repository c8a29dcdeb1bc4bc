"""AdaMix: A(u) = U_j phi(V_i u + b_Vi) + b_Uj, experts i and j drawn at random; at evaluation their average.

Wang et al. 2022, "AdaMix: Mixture-of-Adaptations for Parameter-efficient Model Tuning", arXiv 2205.12410 (recalled).
Experts of a place start equal, as in the authors' code, on Pfeiffer's places. For every place and step a down expert
and an up expert are drawn, twice; two passes follow the two routes. The task loss is that of the first pass; added is
(KL(p || q) + KL(q || p)) / 2 of their predictions p, q, for regression the mean squared error. Experts that no route
takes in a step rest. What trains is `experts` adapters a place; stored is one.
Where paper and authors' code differ: the code stops the gradient through the target of each divergence and measures
regression by the same divergence (zero for one output); here the gradient flows through both.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from peft_core.methods._adapters import AdapterConfig
from peft_core.methods._contract import Attached, Method, SecondPass, WeightUpdate
from peft_core.methods._fold_products import Pair
from peft_core.methods._masks import stream
from peft_core.methods._modules import NONLINEARITIES, keyed_generator
from peft_core.metrics.parameters import NOT_STORED
from peft_core.records import AdapterPlace, Backbone, InputError

ROLES = ("V", "U", "b_V", "b_U")


class Config(AdapterConfig):
    """Options of AdaMix."""

    learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of this method")
    experts: int = Field(4, ge=1, le=64, description="adapters that train at every place; their average is stored")


class Experts(nn.Module):
    """E times V (bn, h), U (h, bn), b_V (bn), b_U (h): adapters that start equal.

    Args:
        key: what routes depend on beside the step: the seed and the place.
    """

    def __init__(self, down: Tensor, up: Tensor, experts: int, nonlinearity: str, *key: object) -> None:
        super().__init__()
        self.V, self.U = _copies(down, experts), _copies(up, experts)
        self.b_V, self.b_U = _copies(torch.zeros(len(down)), experts), _copies(torch.zeros(len(up)), experts)
        self.phi, self._key = NONLINEARITIES[nonlinearity], key
        self.view = 0
        self.draw(0)

    def draw(self, step: int) -> None:
        """The routes of a step: a down and an up expert for each of the two passes."""
        self.routes = [
            tuple(stream(*self._key, "route", step, view, end) % len(self.V) for end in ("down", "up"))
            for view in (0, 1)
        ]

    def tensors(self) -> tuple[Tensor, ...]:
        """V, U, b_V and b_U of the current route, or at evaluation the average."""
        if not self.training:
            return average(self.V), average(self.U), average(self.b_V), average(self.b_U)
        down, up = self.routes[self.view]
        return self.V[down], self.U[up], self.b_V[down], self.b_U[up]

    def forward(self, u: Tensor) -> Tensor:
        """u (..., h) to (..., h)."""
        down, up, bias_in, bias_out = self.tensors()
        return F.linear(self.phi(F.linear(u, down, bias_in)), up, bias_out)

    def pair(self) -> Pair:
        """What the current route computes, for a fold."""
        down, up, bias_in, bias_out = self.tensors()
        return Pair(down, up, bias_in, bias_out, self.phi)


def _copies(first: Tensor, experts: int) -> nn.ParameterList:
    return nn.ParameterList(first.clone() for _ in range(experts))


def average(experts: Iterable[Tensor]) -> Tensor:
    """Their mean; of equal ones exactly that one."""
    stack = torch.stack([*experts])
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
    mixtures = {place.name: (place, _experts(place, backbone, config, attached.seed)) for place in places}
    for name, (place, module) in mixtures.items():
        attached.add_at_place(place, module)
        for role in ROLES:
            _count(attached, name, role, config.experts)

    def route(view: int) -> None:
        for _, module in mixtures.values():
            module.view = view

    roles = [f"{name}.{role}" for name in mixtures for role in ROLES]
    attached.second_pass = SecondPass(route, consistency)
    attached.one_way = "the average of its experts is stored, not each of them, so training cannot go on from it"
    attached.pack = lambda tensors: {
        role: average(tensors[f"{role}.{expert}"] for expert in range(config.experts)) for role in roles
    }
    attached.unpack = lambda tensors: {
        f"{name}.{expert}" if name in roles else name: value
        for name, value in tensors.items()
        for expert in range(config.experts)
    }
    attached.updates = lambda: [_linear_map(place, module) for place, module in mixtures.values()]
    return attached


def _experts(place: AdapterPlace, backbone: Backbone, config: Config, seed: int) -> Experts:
    std, phi = backbone.adapter_defaults.std, config.nonlinearity or backbone.adapter_defaults.nonlinearity
    down, up = (
        nn.init.normal_(torch.empty(shape), std=std, generator=keyed_generator(seed, place.name, role))
        for role, shape in (("V", (config.bottleneck, place.width)), ("U", (place.width, config.bottleneck)))
    )
    return Experts(down, up, config.experts, phi, seed, place.name)


def _count(attached: Attached, name: str, role: str, experts: int) -> None:
    """All experts train; one is multiplied in a pass and one, their average, is stored: the first stands for it."""
    matrix = not role.startswith("b_")
    attached.add_tensor(name, f"{role}.0", None, name, in_product=matrix)
    for expert in range(1, experts):
        attached.add_tensor(name, f"{role}.{expert}", None, name, in_product=False, differs=NOT_STORED)


def _linear_map(place: AdapterPlace, module: Experts) -> WeightUpdate:
    """Of the average, which is what is evaluated and stored."""
    left, right = average(module.U), average(module.V)
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
