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
    """Parameters of one group, device and type whose values lie behind each other in one flat tensor."""

    def __init__(self, members: Sequence[nn.Parameter]) -> None:
        self.members = list(members)
        self._sizes = [-(-member.numel() // ALIGNED) * ALIGNED for member in members]
        first = members[0]
        self.values = torch.zeros(sum(self._sizes), dtype=first.dtype, device=first.device)
        self._pads = [
            self.values.new_zeros(size - member.numel()) for size, member in zip(self._sizes, members, strict=True)
        ]
        for member, view in zip(members, self.views(self.values), strict=True):
            view.copy_(member.detach())
            member.data = view
        self.moments: tuple[Tensor, Tensor] | None = None
        self.gradient: Tensor | None = None
        self._gathered: list[Tensor] = []

    def views(self, flat: Tensor) -> list[Tensor]:
        """Every member's part of a flat tensor, in the member's shape."""
        parts = zip(flat.split(self._sizes), self.members, strict=True)
        return [part[: member.numel()].view(member.shape) for part, member in parts]

    def moment_views(self) -> list[tuple[Tensor, Tensor]]:
        """Every member's moments, zero at first."""
        if self.moments is None:
            self.moments = (torch.zeros_like(self.values), torch.zeros_like(self.values))
        return list(zip(*map(self.views, self.moments), strict=True))

    def gather(self) -> bool:
        """Puts the gradients into one flat tensor, of which they then are views; False where one is missing."""
        if self.gathered:
            return True
        self.release()
        parts: list[Tensor] = []
        for member, pad in zip(self.members, self._pads, strict=True):
            if member.grad is None:
                return False
            parts += [member.grad.reshape(-1), pad] if len(pad) else [member.grad.reshape(-1)]
        self.gradient = torch.cat(parts)
        self._gathered = self.views(self.gradient)
        for member, view in zip(self.members, self._gathered, strict=True):
            member.grad = view
        return True

    @property
    def gathered(self) -> bool:
        """Whether the gradients that stand now are those that were gathered."""
        return self.gradient is not None and all(
            member.grad is view for member, view in zip(self.members, self._gathered, strict=True)
        )

    def release(self) -> None:
        self.gradient, self._gathered = None, []


class FlatAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) by the fused kernel.

    `state` holds the moments of every parameter that has been updated, ``exp_avg`` and ``exp_avg_sq``; `steps_of` says
    how often it was.

    Args:
        groups: parameter groups with ``params`` and ``weight_decay``; their ``lr`` is set before every step.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self._blocks: list[list[_Block]] = []
        self._steps: dict[nn.Parameter, int] = {}
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
        blocks = [_Block(members) for members in kinds.values()]
        for block in blocks:
            if any(member in self.state for member in block.members):
                self._take_state(block)
        return blocks

    def _take_state(self, block: _Block) -> None:
        for member, views in zip(block.members, block.moment_views(), strict=True):
            before = self.state.get(member)
            if before is not None:
                for name, view in zip(MOMENTS, views, strict=True):
                    before[name] = view.copy_(before[name])

    # --- state ---

    def steps_of(self, parameter: nn.Parameter) -> int:
        """How often a parameter has been updated."""
        return self._steps.get(parameter, 0)

    @torch.no_grad()
    def set_state(self, parameter: nn.Parameter, steps: int, moments: Sequence[Tensor]) -> None:
        """Puts back what `steps_of` and `state` said of a parameter."""
        self._steps[parameter] = steps
        for own, given in zip(self._moments(parameter), moments, strict=True):
            own.copy_(given)

    def _moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """The parameter's own; views of its block's where it is in one."""
        if parameter not in self.state:
            self.state[parameter] = dict(zip(MOMENTS, self._first_moments(parameter), strict=True))
        state = self.state[parameter]
        return state["exp_avg"], state["exp_avg_sq"]

    def _first_moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        for block in (block for blocks in self._blocks for block in blocks):
            for member, views in zip(block.members, block.moment_views(), strict=True):
                if member is parameter:
                    return views
        return torch.zeros_like(parameter), torch.zeros_like(parameter)

    # --- steps ---

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter], limit: float | None) -> float:
        """The norm of all gradients together, which are scaled down to `limit` where they exceed it.

        Args:
            parameters: all that this optimizer has, in an order that does not depend on their groups.
        """
        together = [block for blocks in self._blocks for block in blocks if block.gather()]
        within = {member for block in together for member in block.members}
        standing = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in standing if parameter.grad is not None]
        if not gradients:
            return 0.0
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if limit is not None and norm > limit:
            whole = [block.gradient for block in together if block.gradient is not None]
            whole += [
                parameter.grad for parameter in standing if parameter not in within and parameter.grad is not None
            ]
            torch._foreach_mul_(whole, limit / (norm + 1e-6))
        return norm

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
            together: set[nn.Parameter] = set()
            settings = (group["lr"], group["weight_decay"], *group["betas"], group["eps"])
            for block in blocks:
                steps = {self.steps_of(member) for member in block.members}
                if len(steps) == 1 and block.gather() and block.gradient is not None:
                    self._advance(block)
                    together.update(block.members)
                    assert block.moments is not None
                    into = updates.setdefault((*settings, block.values.device, block.values.dtype), _Updates())
                    into.add(block.values, block.gradient, block.moments, steps.pop() + 1)
            for parameter in group["params"]:
                if parameter.grad is not None and parameter not in together:
                    self._steps[parameter] = self.steps_of(parameter) + 1
                    into = updates.setdefault((*settings, parameter.device, parameter.dtype), _Updates())
                    into.add(parameter, parameter.grad, self._moments(parameter), self._steps[parameter])

    def _advance(self, block: _Block) -> None:
        """Counts a step of all members, and gives them their state in the first one."""
        if self.steps_of(block.members[0]) == 0:
            for member, views in zip(block.members, block.moment_views(), strict=True):
                self.state[member] = dict(zip(MOMENTS, views, strict=True))
        for member in block.members:
            self._steps[member] = self.steps_of(member) + 1


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
