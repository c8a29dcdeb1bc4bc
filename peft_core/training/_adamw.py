"""AdamW that updates the small parameters of a group as one flat tensor.

A parameter-efficient method trains dozens of small tensors, and on a CPU an optimizer's step over them is mostly the
overhead of single operations. Here the small parameters of a group are views of one flat tensor, and so are their
moments; gradients are gathered into one as well, where they stand as views. What hooks see is unchanged: every
parameter has its gradient and its moments, and one without a gradient is not touched. Parameters past `SMALL` stay by
themselves, so full fine-tuning keeps no second copy of its weights or gradients.

How a value is rounded must not depend on what else is in its group, which growth and a resume change: every parameter
begins at a multiple of `ALIGNED` values, so that vector instructions cut it alike, and norms are taken one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 2**16
"""Most values of a parameter that is updated together with others."""
ALIGNED = 16
MOMENTS = ("exp_avg", "exp_avg_sq")
Settings = tuple[Any, ...]


@dataclass
class _Updates:
    """What one fused call updates: equally long lists."""

    values: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    moments: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    steps: list[int] = field(default_factory=list)

    def add(self, value: Tensor, gradient: Tensor, moments: Sequence[Tensor], step: int) -> None:
        self.values.append(value)
        self.gradients.append(gradient)
        self.moments[0].append(moments[0])
        self.moments[1].append(moments[1])
        self.steps.append(step)


class _Block:
    """Parameters of one group, device and type whose values lie behind each other in one flat tensor.

    steps: how often each of them was updated; None where they differ.
    """

    def __init__(self, members: Sequence[nn.Parameter]) -> None:
        self.members = list(members)
        self._pads = [member.new_zeros(-member.numel() % ALIGNED) for member in members]
        self.values = self._flat([member.detach() for member in members])
        for member, view in zip(members, self.views(self.values), strict=True):
            member.data = view
        self.moments: tuple[Tensor, Tensor] | None = None
        self.gradient: Tensor | None = None
        self.steps: int | None = 0
        self._gathered: list[Tensor] = []
        self._padded: dict[nn.Parameter, tuple[Tensor, Tensor, tuple[Tensor, Tensor]]] = {}

    def _flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The tensors behind each other, each filled up with zeros; one new tensor."""
        parts = [part for pair in zip(tensors, self._pads, strict=True) for part in pair]
        flat: Tensor = torch._C._nn.flatten_dense_tensors(parts)  # type: ignore[attr-defined]
        return flat

    def views(self, flat: Tensor) -> list[Tensor]:
        """Every member's part of a flat tensor, in the member's shape."""
        parts = [part for pair in zip(self.members, self._pads, strict=True) for part in pair]
        found: list[Tensor] = torch._C._nn.unflatten_dense_tensors(flat, parts)[::2]  # type: ignore[attr-defined]
        return found

    def moment_views(self) -> list[tuple[Tensor, Tensor]]:
        """Every member's moments, zero at first."""
        if self.moments is None:
            self.moments = (torch.zeros_like(self.values), torch.zeros_like(self.values))
        return list(zip(*map(self.views, self.moments), strict=True))

    def gather(self) -> Tensor | None:
        """The gradients as one flat tensor, of which they then are views; None where one is missing."""
        gradients = [member.grad for member in self.members]
        if self.gradient is not None and all(map(is_, gradients, self._gathered)):
            return self.gradient
        self.release()
        standing = [gradient for gradient in gradients if gradient is not None]
        if len(standing) < len(gradients):
            return None
        self.gradient = self._flat(standing)
        self._gathered = self.views(self.gradient)
        for member, view in zip(self.members, self._gathered, strict=True):
            member.grad = view
        return self.gradient

    def padded(self, member: nn.Parameter) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """A member's value, gradient and moments by themselves, each with its filling: flat."""
        if not self._padded:
            sizes = [one.numel() + len(pad) for one, pad in zip(self.members, self._pads, strict=True)]
            assert self.moments is not None
            parts = zip(*(flat.split(sizes) for flat in (self.values, *self.moments)), strict=True)
            self._padded = {
                one: (value, pad, (first, second))
                for one, pad, (value, first, second) in zip(self.members, self._pads, parts, strict=True)
            }
        value, pad, moments = self._padded[member]
        assert member.grad is not None
        return value, torch.cat([member.grad.reshape(-1), pad]), moments

    def release(self) -> None:
        self.gradient, self._gathered = None, []


class FlatAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) by the fused kernel.

    `state` holds the moments of every parameter that has been updated, ``exp_avg`` and ``exp_avg_sq``; `steps_of` says
    how often it was.

    Args:
        groups: parameter groups with ``params`` and ``weight_decay``; their ``lr`` is set before every step.
        grows: parameters may come and go. The norm of the gradients is then made of each one's, in their given order;
            else of each group's.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        grows: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._blocks: list[list[_Block]] = []
        self._home: dict[nn.Parameter, _Block] = {}
        self._steps: dict[nn.Parameter, int] = {}
        self._grows = grows
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "betas": betas, "eps": eps})

    # --- parameters ---

    @torch.no_grad()
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._blocks.append(self._arranged(self.param_groups[-1]["params"]))

    @torch.no_grad()
    def retain(self, parameters: Iterable[nn.Parameter]) -> None:
        """Lets go of all others."""
        kept = {id(parameter) for parameter in parameters}
        for place, group in enumerate(self.param_groups):
            left = [parameter for parameter in group["params"] if id(parameter) in kept]
            if len(left) < len(group["params"]):
                group["params"] = left
                self._blocks[place] = self._arranged(left)

    def _arranged(self, parameters: Iterable[nn.Parameter]) -> list[_Block]:
        kinds: dict[Any, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.numel() <= SMALL:
                kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        blocks = []
        for members in kinds.values():
            for member in members:
                self._steps[member] = self.steps_of(member)
            blocks.append(_Block(members))
            self._home |= dict.fromkeys(members, blocks[-1])
            blocks[-1].steps = self._common_steps(blocks[-1])
            if any(member in self.state for member in members):
                self._take_state(blocks[-1])
        return blocks

    def _take_state(self, block: _Block) -> None:
        for member, views in zip(block.members, block.moment_views(), strict=True):
            before = self.state.get(member)
            if before is not None:
                for name, view in zip(MOMENTS, views, strict=True):
                    before[name] = view.copy_(before[name])

    def _common_steps(self, block: _Block) -> int | None:
        counts = {self._steps.get(member, 0) for member in block.members}
        return counts.pop() if len(counts) == 1 else None

    # --- state ---

    def steps_of(self, parameter: nn.Parameter) -> int:
        """How often a parameter has been updated."""
        home = self._home.get(parameter)
        return self._steps.get(parameter, 0) if home is None or home.steps is None else home.steps

    @torch.no_grad()
    def set_state(self, parameter: nn.Parameter, steps: int, moments: Sequence[Tensor]) -> None:
        """Puts back what `steps_of` and `state` said of a parameter."""
        self._part(parameter)
        self._steps[parameter] = steps
        for own, given in zip(self._moments(parameter), moments, strict=True):
            own.copy_(given)

    def _part(self, parameter: nn.Parameter) -> None:
        """From now on the parameters of its block have counts of their own."""
        home = self._home.get(parameter)
        if home is not None and home.steps is not None:
            self._steps |= dict.fromkeys(home.members, home.steps)
            home.steps = None

    def _moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """The parameter's own; views of its block's where it is in one."""
        if parameter not in self.state:
            home, own = self._home.get(parameter), (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for member, views in zip(home.members, home.moment_views(), strict=True) if home is not None else ():
                own = views if member is parameter else own
            self.state[parameter] = dict(zip(MOMENTS, own, strict=True))
        state = self.state[parameter]
        return state["exp_avg"], state["exp_avg_sq"]

    # --- steps ---

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter], limit: float | None) -> float:
        """The norm of all gradients together, which are scaled down to `limit` where they exceed it.

        Args:
            parameters: all that this optimizer has, in an order that does not depend on their groups.
        """
        gradients = self._gathered()
        if not gradients:
            return 0.0
        parts = [one.grad for one in parameters if one.grad is not None] if self._grows else gradients
        norms = torch._foreach_norm(parts)
        norm = float(norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms)))
        if limit is not None and norm > limit:
            torch._foreach_mul_(gradients, limit / (norm + 1e-6))
        return norm

    def _gathered(self) -> list[Tensor]:
        """All gradients that stand, those of a block as one where it has them all."""
        found = []
        for group, blocks in zip(self.param_groups, self._blocks, strict=True):
            together = [block for block in blocks if block.gather() is not None]
            found += [block.gradient for block in blocks if block.gradient is not None]
            if len(together) < len(blocks) or sum(len(block.members) for block in together) < len(group["params"]):
                found += [
                    one.grad for one in group["params"] if one.grad is not None and self._home.get(one) not in together
                ]
        return found

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        step_all([self])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Lets go of all gradients."""
        for group, blocks in zip(self.param_groups, self._blocks, strict=True):
            for parameter in group["params"]:
                parameter.grad = None
            for block in blocks:
                block.release()

    def _collect(self, updates: dict[Settings, _Updates]) -> None:
        """Adds what is updated now; a block's parameters together, where all have been equally often before."""
        for group, blocks in zip(self.param_groups, self._blocks, strict=True):
            settings = (group["lr"], group["weight_decay"], *group["betas"], group["eps"])
            together = [block for block in blocks if self._advance(block)]
            for block in together:
                assert block.moments is not None and block.gradient is not None and block.steps is not None
                into = updates.setdefault((*settings, block.values.device, block.values.dtype), _Updates())
                into.add(block.values, block.gradient, block.moments, block.steps)
            if sum(len(block.members) for block in together) == len(group["params"]):
                continue
            for parameter in group["params"]:
                home = self._home.get(parameter)
                if parameter.grad is not None and home not in together:
                    self._part(parameter)
                    self._steps[parameter] = self.steps_of(parameter) + 1
                    into = updates.setdefault((*settings, parameter.device, parameter.dtype), _Updates())
                    moments = self._moments(parameter)
                    value, gradient = parameter.detach(), parameter.grad
                    if home is not None:
                        value, gradient, moments = home.padded(parameter)
                    into.add(value, gradient, moments, self._steps[parameter])

    def _advance(self, block: _Block) -> bool:
        """Counts a step of all members, if they take it together; gives them their state in the first one."""
        if block.gather() is None:
            return False
        if block.steps is None:
            block.steps = self._common_steps(block)
        if block.steps is None:
            return False
        if block.steps == 0:
            for member, views in zip(block.members, block.moment_views(), strict=True):
                self.state[member] = dict(zip(MOMENTS, views, strict=True))
        block.steps += 1
        return True


@torch.no_grad()
def step_all(optimizers: Iterable[FlatAdamW]) -> None:
    """A step of several optimizers: what has equal rates and decay is updated in one fused call."""
    updates: dict[Settings, _Updates] = {}
    for optimizer in optimizers:
        optimizer._collect(updates)
    for (rate, decay, beta1, beta2, eps, device, _), one in updates.items():
        counts = {count: torch.full((), float(count), device=device) for count in set(one.steps)}
        torch._fused_adamw_(
            one.values,
            one.gradients,
            *one.moments,
            [],
            [counts[count] for count in one.steps],
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=decay,
            eps=eps,
            amsgrad=False,
            maximize=False,
        )
