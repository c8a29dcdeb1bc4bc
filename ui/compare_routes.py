"""More addresses of the Compare tab under `ranklab/`. JSON in, strict JSON out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from peft_core.records import checked
from ui.compare_service import CompareService
from ui.form import Form
from ui.links import LONGEST_QUERY
from ui.routes import LONGEST_NAME, answered, body_of, refused


def compare_routes(service: CompareService) -> list[BaseRoute]:
    """The routes, to be put in front of Gradio's own."""
    handlers = CompareHandlers(service)
    return [
        Route("/ranklab/layers", handlers.layers),
        Route("/ranklab/spectra", handlers.spectra),
        Route("/ranklab/starts", handlers.starts),
        Route("/ranklab/linked", handlers.linked),
        Route("/ranklab/said", handlers.said, methods=["POST"]),
    ]


class CompareHandlers:
    """One function per address."""

    def __init__(self, service: CompareService) -> None:
        self._service = service

    async def layers(self, request: Request) -> Response:
        name, label = (request.query_params.get(key, "")[:LONGEST_NAME] for key in ("id", "label"))
        return await answered(lambda: self._service.layers(name, label, _after(request)))

    async def spectra(self, request: Request) -> Response:
        name, site = (request.query_params.get(key, "")[:LONGEST_NAME] for key in ("id", "site"))
        return await answered(lambda: self._service.spectra(name, site or None, _after(request)))

    async def starts(self, _request: Request) -> Response:
        return await answered(self._service.presets)

    async def linked(self, request: Request) -> Response:
        """The page's own query string, sent on as it is."""
        if len(request.url.query) > LONGEST_QUERY:
            return refused([{"field": "", "message": "The link is too long to be read."}])
        pairs = request.query_params.multi_items()
        return await answered(lambda: self._service.linked(pairs))

    async def said(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.said(checked(Form, body)))


def _after(request: Request) -> int:
    text = request.query_params.get("after", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
