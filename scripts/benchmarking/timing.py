"""Times measured in turns, and straight lines through them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

Step = Callable[[], Any]
WARMUP = 3


def interleaved(
    variants: Mapping[str, Step], repeats: int, block: int = 1, warmup: int = WARMUP
) -> dict[str, list[float]]:
    """Seconds of a step of every variant, `repeats` times, in turns so that a drift of the machine meets all of them.

    Args:
        block: steps between two readings of the clock; each reading waits for the device.
        warmup: steps of every variant before.
    """
    for step in variants.values():
        for _ in range(warmup):
            step()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, step in variants.items():
            wait()
            started = time.perf_counter()
            for _ in range(block):
                step()
            wait()
            times[name].append((time.perf_counter() - started) / block)
    return times


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_ratio(times: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Median over the turns of one variant's time by another's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def straight_line(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """Least squares y = intercept + slope x: both, the residuals y - fit, and R^2, the explained share of y's variance.

    Raises:
        ValueError: fewer than three points, through which every line fits.
    """
    if len(x) < 3:
        raise ValueError(f"a line through {len(x)} points says nothing")
    slope, intercept = np.polyfit(np.asarray(x, dtype=float), np.asarray(y, dtype=float), 1)
    residuals = np.asarray(y) - (intercept + slope * np.asarray(x))
    variance = float(np.square(np.asarray(y) - np.mean(y)).sum())
    share = 1.0 if variance == 0 else 1 - float(np.square(residuals).sum()) / variance
    return {"intercept": float(intercept), "slope": float(slope), "residuals": residuals.tolist(), "r2": share}
