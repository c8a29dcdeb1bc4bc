"""What the machine allows and has done: cores within the container's limit, processes the system killed for memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use at once, a container's limit included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _own_groups("cpu"):
        quota, period = _pair(folder / "cpu.max") or (
            _text(folder / "cpu.cfs_quota_us"),
            _text(folder / "cpu.cfs_period_us"),
        )
        if quota.isdigit() and period.isdigit():  # "max" and -1 mean no limit
            cores = min(cores, max(1, math.ceil(int(quota) / max(1, int(period)))))
    return cores


def oom_kills() -> int:
    """How many processes the system has killed for memory so far: in this process's groups and on the machine."""
    files = [folder / name for folder in _own_groups("memory") for name in ("memory.events", "memory.oom_control")]
    return sum(_counter(file, "oom_kill") for file in [*files, Path("/proc/vmstat")])


def _own_groups(controller: str) -> list[Path]:
    """The folders of the control groups that hold this process, in both versions of the interface."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots = (CGROUPS, CGROUPS / "unified")
        elif controller in controllers.split(","):
            roots = (CGROUPS / controllers, CGROUPS / controller)
        else:
            continue
        folders += [folder for root in roots for folder in (root / path.lstrip("/"), root) if folder.is_dir()]
    return list(dict.fromkeys(folders))


def _counter(file: Path, name: str) -> int:
    found = next((line.split()[1:] for line in _text(file).splitlines() if line.startswith(f"{name} ")), [])
    return int(found[0]) if found and found[0].isdigit() else 0


def _pair(file: Path) -> tuple[str, str] | None:
    parts = _text(file).split()
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
