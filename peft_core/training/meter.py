"""Memory and energy while a run has its turns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from peft_core.training.totals import Totals


class Meter:
    """What a run's process and its device report while the run has its turns.

    Runs of a comparison take turns in one process, so a peak includes what all of them keep: the backbone, the data,
    the other runs' parameters and moments. It leaves out what others needed for a moment in their own turns, unless
    another comparison trains in a thread of the same process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._on = False
        self._joules: float | None = None

    @contextmanager
    def turn(self, totals: Totals) -> Iterator[None]:
        """Adds to the totals what is reported of the time within."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        _forget_host_peak()
        self._on, self._joules = True, read_joules(self.device)
        try:
            yield
        finally:
            self.add_to(totals)
            self._on = False

    def add_to(self, totals: Totals) -> None:
        """Adds what has come together since the turn began, or since this was last called; between turns nothing."""
        if not self._on:
            return
        now, before = read_joules(self.device), self._joules
        used = now - before if now is not None and before is not None else None
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        totals.add_turn(used, peak, host_peak_bytes())
        self._joules = now


def host_peak_bytes() -> int | None:
    """Largest resident memory of this process, since it was last forgotten where the system can (Linux)."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _forget_host_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def read_joules(device: torch.device) -> float | None:
    """Energy that an NVIDIA device has used since its driver was loaded, all of its programs together.

    None on other devices, without nvidia-ml-py, and where the device does not count (before Volta).
    """
    handle = _nvml_handle(device) if device.type == "cuda" else None
    if handle is None:
        return None
    import pynvml

    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return None


@cache
def _nvml_handle(device: torch.device) -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None
