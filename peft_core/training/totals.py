"""What a run has used so far: time, FLOPs, memory, energy. Sums that a checkpoint holds, so that a resumed run's are
those of the whole run."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TIMED_FROM = 5
"""Steps left out of the median step time and of the examples per second: the first ones include lazy initialisation."""
KEPT_TIMES = 500
"""Step times that a checkpoint holds."""


@dataclass
class Passes:
    """What a step trains on: its micro-batches.

    shapes: theirs (`counting.Shape`). tokens: their positions, padding included. waited: seconds spent on choosing,
    assembling and moving them.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    tokens: int = 0
    waited: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[Passes]:
        """The time within is waited."""
        started = time.perf_counter()
        yield self
        self.waited += time.perf_counter() - started


@dataclass
class Totals:
    """Sums over a run's steps; evaluations are in none but energy and memory.

    seconds: training time. waited: of it, choosing, assembling and moving batches. examples: rows trained on.
    flops: executed, all; module_flops: the method's own; nominal_flops: the method's own by the papers' formula, for
    every token, non-zeros only (of pruned directions none), three times the forward's. passes: how many
    micro-batches of a (task, shape) were trained on.
    early_seconds, early_examples: those of the first `TIMED_FROM` steps.
    joules: of the whole device while the run had its turns; None where the device does not say.
    device_peak, host_peak: bytes, the largest while the run had its turns.
    losses: sums of task loss and penalty since the last interval began, and its steps.
    """

    seconds: float = 0.0
    waited: float = 0.0
    examples: int = 0
    flops: float = 0.0
    module_flops: float = 0.0
    nominal_flops: float = 0.0
    early_seconds: float = 0.0
    early_examples: int = 0
    joules: float | None = None
    device_peak: int | None = None
    host_peak: int | None = None
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    step_times: list[float] = field(default_factory=list)
    passes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    steps: int = 0

    def add_step(self, seconds: float, waited: float, examples: int) -> None:
        self.seconds += seconds
        self.waited += waited
        self.examples += examples
        self.step_times.append(seconds)
        self.steps += 1
        if self.steps <= TIMED_FROM:
            self.early_seconds, self.early_examples = self.seconds, self.examples

    def add_loss(self, loss: float, penalty: float | None, begins: bool) -> None:
        """begins: True at the first step of an interval between evaluations."""
        before = [0.0, 0.0, 0.0] if begins else self.losses
        self.losses = [before[0] + loss, before[1] + (penalty or 0.0), before[2] + 1]

    def add_turn(self, joules: float | None, device_peak: int | None, host_peak: int | None) -> None:
        if joules is not None:
            self.joules = (self.joules or 0.0) + joules
        self.device_peak = _larger(self.device_peak, device_peak)
        self.host_peak = _larger(self.host_peak, host_peak)

    @property
    def left_out(self) -> int:
        """How many first steps `step_ms_median` and `examples_per_second` leave out: none where there are no more."""
        return TIMED_FROM if self.steps > TIMED_FROM else 0

    @property
    def step_ms_median(self) -> float | None:
        resumed = len(self.step_times) < self.steps
        timed = self.step_times if resumed else self.step_times[self.left_out :]
        return 1000 * statistics.median(timed) if timed else None

    @property
    def examples_per_second(self) -> float | None:
        early = (self.early_examples, self.early_seconds) if self.left_out else (0, 0.0)
        seconds = self.seconds - early[1]
        return (self.examples - early[0]) / seconds if seconds > 0 else None

    @property
    def data_wait_share(self) -> float | None:
        return self.waited / self.seconds if self.seconds > 0 else None

    @property
    def mean_losses(self) -> tuple[float, float] | None:
        """Task loss and penalty, means over the steps since the interval began."""
        loss, penalty, steps = self.losses
        return (loss / steps, penalty / steps) if steps else None

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        times = self.step_times[-KEPT_TIMES:]
        return vars(self) | {"step_times": times, "passes": [[*key, count] for key, count in self.passes.items()]}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Totals:
        """From what `state` gave."""
        passes = Counter({tuple(key): count for *key, count in state["passes"]})
        return cls(**{**state, "step_times": list(state["step_times"]), "passes": passes})


def _larger(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)
