"""The Papers tab's addresses under `ranklab/papers/`. Strict JSON out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ui.papers_service import Papers
from ui.routes import answered


def papers_routes(papers: Papers) -> list[BaseRoute]:
    """The routes, to be put in front of Gradio's own."""
    handlers = PapersHandlers(papers)
    return [
        Route("/ranklab/papers/quoted", handlers.quoted),
        Route("/ranklab/papers/measured", handlers.measured),
        Route("/ranklab/papers/here", handlers.here),
    ]


class PapersHandlers:
    """One function per address."""

    def __init__(self, papers: Papers) -> None:
        self._papers = papers
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="papers")

    async def quoted(self, _request: Request) -> Response:
        return await answered(self._papers.quoted, self._threads)

    async def measured(self, _request: Request) -> Response:
        return await answered(self._papers.measured, self._threads)

    async def here(self, _request: Request) -> Response:
        return await answered(self._papers.here, self._threads)
