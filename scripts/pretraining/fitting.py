"""The optimisation that all recipes share."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

log = logging.getLogger("pretrain")
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Schedule:
    steps: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip_norm: float = 1.0


def fit(
    modules: nn.ModuleList, schedule: Schedule, losses: Callable[[int], dict[str, torch.Tensor]], every: int = 100
) -> Curve:
    """Minimise the sum of the losses; returns their means over every `every` steps.

    AdamW, linear warm-up, then a cosine to zero.
    """
    parameters = list(modules.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay, fused=True
    )
    warm = max(1, round(schedule.warmup * schedule.steps))
    curve: Curve = []
    sums: dict[str, float] = {}
    begin = time.monotonic()
    for step in range(schedule.steps):
        rest = (step - warm) / max(1, schedule.steps - warm)
        factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * rest))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * factor
        parts = losses(step)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            count = (step % every) + 1
            curve.append({"step": step + 1, **{name: round(total / count, 4) for name, total in sums.items()}})
            sums = {}
            spent = time.monotonic() - begin
            left = spent / (step + 1) * (schedule.steps - step - 1)
            log.info("%s, %.0f s, about %.0f s left", curve[-1], spent, left)
    return curve
