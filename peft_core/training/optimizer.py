"""AdamW over a run's own parameters, and the learning-rate curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peft_core.methods import Group
from peft_core.training._adamw import MOMENTS, FlatAdamW, step_all

__all__ = [
    "FlatAdamW",
    "cycle_of",
    "group_rate",
    "load_optimizer_tensors",
    "make_optimizer",
    "optimizer_tensors",
    "rate_factor",
    "split_groups",
    "step_all",
]


def cycle_of(step: int, total_steps: int, cycles: int) -> tuple[int, int]:
    """First step of the cycle that a step (from 0) lies in, and the first one after it; cycles are equally long."""
    cycle = step * cycles // total_steps
    return -(-cycle * total_steps // cycles), -(-(cycle + 1) * total_steps // cycles)


def rate_factor(step: int, total_steps: int, warmup: float, cycles: int = 1) -> float:
    """Share of the peak rate at a step (from 0): linear up over the warm-up, then linear down to 0 at the end.

    cycles: how often it does so over the run.
    """
    start, end = cycle_of(step, total_steps, cycles)
    step, total_steps = step - start, end - start
    rising = round(warmup * total_steps)
    if step < rising:
        return (step + 1) / rising
    return (total_steps - step) / (total_steps - rising)


def group_rate(group: Group, step: int, total_steps: int, peak: float, warmup: float, cycles: int = 1) -> float:
    """The learning rate of a group at a step: the run's curve, or one that starts when the group was born."""
    top = group.rate if group.rate is not None else peak
    if group.born is None:
        return top * rate_factor(step, total_steps, warmup, cycles)
    age = step - group.born
    if age < group.warmup:
        return top * age / group.warmup
    return top * (total_steps - step) / max(1, total_steps - group.born - group.warmup)


def make_optimizer(
    parameters: Mapping[str, nn.Parameter],
    weight_decay: float,
    groups: Mapping[str, Group] | None = None,
    grows: bool = False,
) -> FlatAdamW:
    """AdamW (betas 0.9, 0.999; eps 1e-8); vectors (biases, LayerNorms, gates) have no weight decay.

    Every parameter group carries its `Group` under ``schedule``. grows: parameters may come and go while it is used.
    """
    return FlatAdamW(split_groups(parameters, weight_decay, groups or {}), grows)


def split_groups(
    parameters: Mapping[str, nn.Parameter], weight_decay: float, groups: Mapping[str, Group]
) -> list[dict[str, Any]]:
    """Parameter groups: one for each schedule and decay among the parameters."""
    split: dict[tuple[Group, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        group = groups.get(name, Group())
        default = weight_decay if parameter.dim() > 1 else 0.0
        split.setdefault((group, group.decay if group.decay is not None else default), []).append(parameter)
    return [{"params": members, "weight_decay": decay, "schedule": group} for (group, decay), members in split.items()]


def optimizer_tensors(optimizer: FlatAdamW, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, as ``optimizer.<kind>.<name>``."""
    found: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        if parameter in optimizer.state:
            found[f"optimizer.step.{name}"] = torch.tensor(float(optimizer.steps_of(parameter)))
            found |= {f"optimizer.{kind}.{name}": value for kind, value in optimizer.state[parameter].items()}
    return found


def load_optimizer_tensors(
    optimizer: FlatAdamW, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Puts back what `optimizer_tensors` gave."""
    for name, parameter in parameters.items():
        steps = tensors.get(f"optimizer.step.{name}")
        if steps is not None:
            moments = [tensors[f"optimizer.{kind}.{name}"] for kind in MOMENTS]
            optimizer.set_state(parameter, int(steps), moments)
