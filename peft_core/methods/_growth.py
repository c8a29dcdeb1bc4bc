"""When and where IncreLoRA's ranks grow: the schedule, and the choice of maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peft_core.records import InputError


@dataclass(frozen=True)
class GrowthPlan:
    """What is asked for: see the options of the same names."""

    target_rank: int
    interval: int | None
    top_h: int | None
    reserve: int
    first_growth: Literal["nu", "2nu"]


class GrowthSchedule:
    """The steps at which ranks grow in a run of T steps, so that the target is reached by T / 2.

    Growth happens at nu, 2 nu, 3 nu ... (Algorithm 1), or from 2 nu on (the code); steps count from 0. In every round
    at least h maps gain c each, so ceil((target - maps) / (h c)) rounds always suffice. Left out, the interval is
    T / 40 and h the smallest that suffices; with h alone given, the interval is the largest that suffices. Where maps
    have reached their smaller side, fewer than h may have gained; the last round then makes up for it.

    Raises:
        InputError: the target is not reached by T / 2.
    """

    def __init__(self, plan: GrowthPlan, maps: int, total_steps: int) -> None:
        need, half = (plan.target_rank - 1) * maps, total_steps // 2
        self.first = 1 if plan.first_growth == "nu" else 2
        if plan.top_h is not None:
            self.top_h = min(plan.top_h, maps)
            rounds = math.ceil(need / (self.top_h * plan.reserve))
            self.interval = plan.interval or max(1, half // (rounds + self.first - 1) if need else half)
        else:
            self.interval = plan.interval or max(1, total_steps // 40)
            possible = max(1, half // self.interval - self.first + 1)
            self.top_h = min(maps, max(1, math.ceil(need / (possible * plan.reserve))))
        self.rounds = math.ceil(need / (self.top_h * plan.reserve))
        self.last = (self.rounds + self.first - 1) * self.interval if self.rounds else 0
        if self.last > half:
            field = "interval" if plan.interval else "top_h" if plan.top_h else "target_rank"
            raise InputError(
                field,
                getattr(plan, field),
                f"ranks would grow until step {self.last}, and must be there by step {half}, half of {total_steps}",
            )

    def grows(self, step: int) -> bool:
        """Whether ranks grow at a step, counted from 0, while the target is not reached."""
        return step >= self.first * self.interval and step % self.interval == 0


def choose(scores: Sequence[float], top_h: int, reserve: int, room: int, free: Sequence[int]) -> dict[int, int]:
    """Which maps grow, and by how much: all at or above the k-th largest score, k = min(h, room), gain c.

    Ties are all taken. The sum never exceeds `room`: the best are served first, among equals those that come first,
    and the last may gain less than c. (The authors' code lets it exceed, and then never reaches its end.)

    Args:
        free: what each map may still gain, up to its smaller side; a map without is passed over.
    """
    able = [index for index, ranks in enumerate(free) if ranks > 0]
    threshold = sorted((scores[index] for index in able), reverse=True)[min(top_h, room, len(able)) - 1]
    ordered = sorted((index for index in able if scores[index] >= threshold), key=lambda i: -scores[i])
    gains: dict[int, int] = {}
    for index in ordered:
        gains[index] = min(reserve, room, free[index])
        room -= gains[index]
        if room == 0:
            break
    return gains
