"""What a server counts, as text for Prometheus (format 0.0.4). Numbers alone: no names, no ids, nobody's address."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Collection, Iterator

import psutil
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peft_core.records import RunState
from peft_core.runs import Figures

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
STORE_SECONDS = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE")
PREFIX = "/ranklab/"
OTHER = "other"
"""For whatever a visitor could invent: labels come from short lists, so that their number is bounded."""


disable_created_metrics()


class Metrics(Collector):
    """Counters of one server. figures: what the supervisor counts."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ranklab_http_requests", "HTTP requests by address, method and class of status.",
            ("address", "method", "status"), registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "ranklab_http_request_seconds", "Seconds from a request to the end of its answer; a poll is /ranklab/view.",
            ("address",), buckets=REQUEST_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._stored = Histogram(
            "ranklab_event_store_seconds", "Seconds from a worker's report to its being stored, the oldest of a write.",
            buckets=STORE_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._events = Counter("ranklab_events", "Reports of workers that were stored.", registry=self._registry)
        self._registry.register(self)

    def stored(self, seconds: float, number: int) -> None:
        """Reports were stored."""
        self._stored.observe(seconds)
        self._events.inc(number)

    def answered(self, address: str | None, method: str, status: int, seconds: float) -> None:
        """A request was answered. address: one of this project's own, which are timed; None: any other."""
        kind = f"{status // 100}xx" if 100 <= status < 600 else OTHER
        self._requests.labels(address or OTHER, method if method in METHODS else OTHER, kind).inc()
        if address:
            self._seconds.labels(address).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks no store."""
        return []

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        runs = GaugeMetricFamily("ranklab_runs", "Runs in the store by state.", labels=("state",))
        for state in RunState:
            runs.add_metric((state.value,), figures.runs.get(state, 0))
        yield runs
        yield GaugeMetricFamily("ranklab_queue_length", "Comparisons that wait.", value=figures.waiting)
        yield GaugeMetricFamily("ranklab_at_work", "Comparisons that train.", value=figures.at_work)
        yield GaugeMetricFamily("ranklab_workers", "Worker processes, spare ones too.", value=len(figures.workers))
        memory = GaugeMetricFamily("ranklab_memory_bytes", "Resident memory of processes.", labels=("process",))
        memory.add_metric(("server",), resident([os.getpid()]))
        memory.add_metric(("workers",), resident(figures.workers))
        yield memory


def resident(processes: Collection[int]) -> int:
    """Bytes of resident memory of those processes that are there."""
    total = 0
    for process in processes:
        try:
            total += psutil.Process(process).memory_info().rss
        except psutil.Error:
            continue
    return total


class Counting:
    """Counts and times every HTTP request that passes through to `app`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.answered(own_address(scope), scope["method"], status, time.monotonic() - started)


def own_address(scope: Scope) -> str | None:
    """The address of a request that a route of this project took, and no part of which the visitor chose."""
    path = str(scope["path"])
    routed = inspect.isroutine(scope.get("endpoint")) and not scope.get("path_params")
    return path if routed and path.startswith(PREFIX) else None
