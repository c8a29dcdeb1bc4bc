"""A short measurement: how fast a comparison's steps are, its runs alone or folded, with one thread or all.

What is timed are copies of runs, which are thrown away: no record, curve, total or generator knows of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch

from peft_core.records import RunFailure
from peft_core.training.counting import Flops, StepCounter
from peft_core.training.lockstep import Together
from peft_core.training.loop import Run, train

TIMED = 2
"""Steps that are timed, after one that is not; the fastest counts, as others' work only slows."""
SHARE_OF_WORK = 0.03
"""Most time that is spent on measuring, as a share of what the comparison is expected to take."""


class Uncounted(StepCounter):
    """For a copy, whose FLOPs nobody reads: counting those of a new method takes longer than many steps."""

    def __init__(self) -> None:
        self.folded = False

    def prepare(self, task: int, step: int) -> None:
        """Nothing to find out."""

    def pass_flops(self, task: int, shape: Any) -> Flops:
        return Flops()

    def token_products(self, task: int, shape: Any) -> int:
        return 0

    def penalty_flops(self) -> Flops:
        return Flops()


def seconds_alone(copy: Run, steps: int = TIMED) -> float:
    """Seconds of one step of a run by itself; that of the fastest of some."""
    copy.counter = Uncounted()
    copy.evaluations = [(0, {})]  # the one before the first step
    copy.eval_every = copy.total_steps + 1
    records = train(copy)
    return _fastest(lambda: next(records), min(steps, copy.total_steps - 1))


def seconds_folded(copies: Sequence[Run], steps: int = TIMED) -> float:
    """Seconds of one step of runs that advance together; that of the fastest of some.

    Raises:
        RunFailure: one of them cannot take these steps.
    """
    for copy in copies:
        copy.counter = Uncounted()
    together, live = Together(copies), [copy.spec.run for copy in copies]

    def step() -> None:
        for found in together.step(live).values():
            if isinstance(found, Exception):
                raise RunFailure(str(found))

    return _fastest(step, steps)


def _fastest(step: Callable[[], Any], steps: int) -> float:
    step()
    times = []
    for _ in range(max(1, steps)):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return min(times)


class IdleCores:
    """How many cores that this process may use do nothing, between two moments."""

    def __init__(self) -> None:
        self._before = _times()

    def found(self) -> float:
        """Cores, on average since the beginning."""
        spans = [
            (after[0] - before[0], after[1] - before[1]) for before, after in zip(self._before, _times(), strict=True)
        ]
        return sum(idle / whole for idle, whole in spans if whole > 0)


def _times() -> list[tuple[float, float]]:
    """(idle, all) seconds of each core that this process may use."""
    every = psutil.cpu_times(percpu=True)
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
    return [
        (times.idle + getattr(times, "iowait", 0.0), sum(times)) for place, times in enumerate(every) if place in own
    ]


def with_threads(count: int, measure: Callable[[], float]) -> float:
    """What `measure` gives under a number of threads; the number is as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return measure()
    finally:
        torch.set_num_threads(before)


class Budget:
    """How long measuring may take: until it is known how long the work takes, as long as it needs."""

    def __init__(self) -> None:
        self._started, self._limit = time.perf_counter(), float("inf")

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._started

    def expects(self, seconds: float) -> None:
        """The work is expected to take so long."""
        self._limit = SHARE_OF_WORK * seconds

    def allows(self, step: float) -> bool:
        """Whether there is time to measure steps that may take so many seconds each."""
        return self.spent + step * (1 + TIMED) <= self._limit
