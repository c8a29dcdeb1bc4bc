"""Processor time and memory of a server, its workers and the viewers, read from the system once a second."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import psutil

EVERY = 1.0
"""Seconds between two looks."""


class Sample(NamedTuple):
    """at: monotonic seconds. server, workers: bytes of resident memory. The other fields: processor seconds so far;
    all_processes: of every process of the machine."""

    at: float
    server: int
    workers: int
    server_cpu: float
    workers_cpu: float
    viewers_cpu: float
    all_processes: float


class Usage:
    """Looks at a server with its children, and at the process of the viewers, until it is told to stop."""

    def __init__(self, server: int, viewers: int) -> None:
        self._server, self._viewers = psutil.Process(server), psutil.Process(viewers)
        self._cpu_of_children: dict[int, float] = {}
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self.samples: list[Sample] = []

    def look(self) -> Sample:
        """Children that have ended keep the time that they had taken."""
        with self._lock:
            return self._look()

    def _look(self) -> Sample:
        memory = 0
        for child in self._server.children(recursive=True):
            try:
                memory += child.memory_info().rss
                self._cpu_of_children[child.pid] = _seconds(child)
            except psutil.Error:
                continue
        workers_cpu = sum(self._cpu_of_children.values())
        busy = psutil.cpu_times()
        used = sum(busy) - busy.idle - getattr(busy, "iowait", 0.0) - getattr(busy, "guest", 0.0)
        server = self._server.memory_info().rss
        viewers_cpu = _seconds(self._viewers) if self._viewers.is_running() else 0.0
        found = Sample(time.monotonic(), server, memory, _seconds(self._server), workers_cpu, viewers_cpu, used)
        self.samples.append(found)
        return found

    def go_on(self) -> None:
        while not self._stopped.wait(EVERY):
            try:
                self.look()
            except psutil.Error:
                return

    def stop(self) -> None:
        self._stopped.set()


@contextmanager
def followed(server: int, viewers: int) -> Iterator[Usage]:
    """A `Usage` that looks once a second from a thread."""
    usage = Usage(server, viewers)
    thread = threading.Thread(target=usage.go_on, name="usage", daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        usage.stop()
        thread.join()


def nearest(samples: Sequence[Sample], at: float) -> Sample:
    return min(samples, key=lambda sample: abs(sample.at - at))


def memory_at(samples: Sequence[Sample], start: float, end: float) -> tuple[float, float]:
    """Median bytes of the server and of its workers from start to end; at the nearest look where nobody looked then."""
    chosen = [one for one in samples if start <= one.at <= end] or [nearest(samples, (start + end) / 2)]
    return statistics.median(one.server for one in chosen), statistics.median(one.workers for one in chosen)


class Cores(NamedTuple):
    """Processor seconds a second. others: processes that are not ours."""

    server: float
    workers: float
    viewers: float
    others: float


def cores(samples: Sequence[Sample], start: float, end: float) -> Cores:
    """What was in use from start to end, at each of which somebody looked."""
    first, last = nearest(samples, start), nearest(samples, end)
    seconds = last.at - first.at
    server, workers, viewers, everything = (last[place] - first[place] for place in (3, 4, 5, 6))
    others = max(0.0, everything - server - workers - viewers)
    return Cores(server / seconds, workers / seconds, viewers / seconds, others / seconds)


def load_of_machine() -> list[float] | None:
    """Load averages of 1, 5 and 15 minutes, where the system has them."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
