"""Which of several ways to the same result is fastest here: measured once for each shape and remembered."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping

import torch

logger = logging.getLogger(__name__)
WARMUP, REPEATS = 3, 7
Work = Callable[[], object]


def device_seconds(work: Work) -> float:
    """Median seconds of `work` after a warm-up, the device's queue emptied before and after each time."""
    times = []
    for _ in range(WARMUP + REPEATS):
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARMUP:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Fastest:
    """Picks among candidates by measuring, once for each key.

    A choice by time may fall otherwise in the next process, and ways that agree up to rounding do not agree bit for
    bit: `choices` is what a checkpoint records, `take_over` what a resumed run begins with.

    Args:
        measure: seconds of a piece of work.
    """

    def __init__(self, measure: Callable[[Work], float] = device_seconds) -> None:
        self._measure = measure
        self._chosen: dict[str, str] = {}

    def pick(self, key: str, candidates: Mapping[str, Work]) -> str:
        """Name of the candidate to use; the last one is the plain way, which a failing one leaves the field to."""
        if key not in self._chosen:
            self._chosen[key] = self._measured(key, candidates)
        return self._chosen[key]

    def _measured(self, key: str, candidates: Mapping[str, Work]) -> str:
        *others, plain = candidates
        times = {plain: self._measure(candidates[plain])}
        for name in others:
            try:
                times[name] = self._measure(candidates[name])
            except torch.AcceleratorError:  # after a device assert nothing in this process gets an answer
                raise
            except Exception:  # a compiler's and a launcher's errors have no common type; the plain way is there
                logger.warning("%s: %s does not run here, %s is used", key, name, plain, exc_info=True)
        return min(times, key=times.__getitem__)

    def choices(self) -> dict[str, str]:
        """What was chosen so far, by key."""
        return dict(self._chosen)

    def take_over(self, choices: Mapping[str, str]) -> None:
        """Uses these choices where they say one, without measuring."""
        self._chosen.update(choices)
