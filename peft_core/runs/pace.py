"""How fast a comparison goes and how long it still takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from peft_core.records import ComparisonRow, RunRow
from peft_core.runs.rows import planned_steps

FIRST_STEPS = 5
"""Steps that are left out of the pace: they include what is done once."""


class Pace:
    """Counts the steps of all runs, whichever worker trains them, against a clock that nobody sets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps = 0
        self._since = 0.0

    def step(self) -> None:
        """A step was made."""
        with self._lock:
            self._steps += 1
            if self._steps == FIRST_STEPS:
                self._since = time.monotonic()

    def seconds_left(self, comparison: ComparisonRow, runs: Iterable[RunRow]) -> float | None:
        """From the steps that are still to do; None where that is not known."""
        made = self._steps - FIRST_STEPS
        if made <= 0:
            return None
        left = 0
        for run in runs:
            total = planned_steps(comparison.spec, run.total_steps)
            if total is None:
                return None
            left += 0 if run.state.ended else max(0, total - run.step)
        return left * (time.monotonic() - self._since) / made
