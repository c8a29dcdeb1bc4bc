"""`/health` for those who restart a server, `/metrics` for those who draw its figures."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

import peft_core
from peft_core.runs import Health
from ui.metrics import MEDIA_TYPE, Metrics
from ui.routes import answer

FRESH_SECONDS = 1.0
"""However often it is asked, the store is looked at once in so long."""


def health_routes(health: Callable[[], Health], metrics: Metrics | None) -> list[BaseRoute]:
    """metrics: None where they are not to be seen."""
    handlers = HealthHandlers(health, metrics)
    return [Route("/health", handlers.health), *([Route("/metrics", handlers.metrics)] if metrics else [])]


class HealthHandlers:
    """One function per address."""

    def __init__(self, health: Callable[[], Health], metrics: Metrics | None) -> None:
        self._ask, self._metrics = health, metrics
        self._lock = threading.Lock()
        self._last: tuple[float, Health] | None = None

    async def health(self, _request: Request) -> Response:
        """200 where comparisons can be taken and trained, else 503; what is amiss is in the answer."""
        found = await asyncio.to_thread(self._health)
        return answer(document(found), 200 if found.able else 503)

    async def metrics(self, _request: Request) -> Response:
        assert self._metrics is not None
        text = await asyncio.to_thread(self._metrics.text)
        return PlainTextResponse(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    def _health(self) -> Health:
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_SECONDS:
                self._last = time.monotonic(), self._ask()
            return self._last[1]


def document(health: Health) -> dict[str, Any]:
    """What `/health` answers."""
    return {
        "status": "ok" if health.able else "failing",
        "version": peft_core.__version__,
        "store": health.store,
        "scheduler": health.scheduler,
        "executor": health.executor,
        "room": health.room,
    }
