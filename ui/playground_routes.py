"""The playground's addresses under `ranklab/playground/`. JSON in, strict JSON out; a fit as one JSON line a point."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from peft_core.records import InputError
from peft_core.runs.errors import Refused
from ui.playground_service import Playground, opening, points
from ui.routes import answered, body_of, refused

if TYPE_CHECKING:
    from peft_core.playground import Curves

MOST_WAITING = 8
"""Visitors whose fits or draws may wait for their turn."""
BUSY = {"field": "", "message": "Many visitors ask for this now; try again in a moment."}


def playground_routes(playground: Playground) -> list[BaseRoute]:
    """The routes, to be put in front of Gradio's own."""
    handlers = PlaygroundHandlers(playground)
    return [
        Route("/ranklab/playground/sketch", handlers.sketch, methods=["POST"]),
        Route("/ranklab/playground/draws", handlers.draws, methods=["POST"]),
        Route("/ranklab/playground/fit", handlers.fit, methods=["POST"]),
        Route("/ranklab/playground/targets", handlers.targets),
        Route("/ranklab/playground/sites", handlers.sites),
    ]


_settling = threading.Lock()


def compute_alone() -> None:
    """Lets torch use one core in this thread, and as many as before in others.

    Small products are no faster on two, and wait for long where a training run has the other core.
    """
    import torch

    with _settling:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        others = threading.Thread(target=torch.set_num_threads, args=(before,))
        others.start()
        others.join()


class PlaygroundHandlers:
    """One function per address."""

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        self._quick = ThreadPoolExecutor(2, thread_name_prefix="sketch", initializer=compute_alone)
        self._slow = ThreadPoolExecutor(2, thread_name_prefix="draws", initializer=compute_alone)
        self._drawing, self._fitting = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._waiting = 0

    async def sketch(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._playground.sketch(body), self._quick)

    async def draws(self, request: Request) -> Response:
        """One visitor's at a time; what a visitor no longer waits for is not begun."""
        body = await body_of(request)
        if self._waiting >= MOST_WAITING:
            return refused([BUSY])
        self._waiting += 1
        try:
            async with self._drawing:
                if await request.is_disconnected():
                    return Response(status_code=204)
                return await answered(lambda: self._playground.drawn(body), self._slow)
        finally:
            self._waiting -= 1

    async def targets(self, _request: Request) -> Response:
        return await answered(self._playground.targets, self._slow)

    async def sites(self, request: Request) -> Response:
        run = request.query_params.get("run", "")
        return await answered(lambda: self._playground.sites(run), self._slow)

    async def fit(self, request: Request) -> Response:
        """A line that says what is fitted, then one for each point of the curves."""
        body = await body_of(request)
        if self._waiting >= MOST_WAITING:
            return refused([BUSY])
        try:
            curves = await self._in_thread(self._playground.curves, body)
        except InputError as error:
            return refused([{"field": error.field, "message": str(error)}])
        except Refused as error:
            return refused([{"field": "", "message": str(error)}])
        headers = {"Cache-Control": "no-store", "Content-Encoding": "identity"}
        return StreamingResponse(self._lines(curves), media_type="application/x-ndjson", headers=headers)

    async def _lines(self, curves: Curves) -> AsyncIterator[str]:
        self._waiting += 1
        try:
            async with self._fitting:
                yield _line(await self._in_thread(opening, curves))
                coming = points(curves)
                while (point := await self._in_thread(next, coming, None)) is not None:
                    yield _line(point)
        finally:
            self._waiting -= 1

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._slow, work, *arguments)


def _line(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
