"""The addresses of the Try it tab under `ranklab/tryit/`. JSON or a picture in, strict JSON out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from peft_core.records import InputError, checked
from ui.routes import answered, body_of, refused
from ui.tryit_service import Question, Rows, TryService, Whom, check_picture

LONGEST_QUERY = 2000


def tryit_routes(service: TryService) -> list[BaseRoute]:
    """The routes, to be put in front of Gradio's own."""
    handlers = TryHandlers(service)
    return [
        Route("/ranklab/tryit/menu", handlers.menu),
        Route("/ranklab/tryit/described", handlers.described),
        Route("/ranklab/tryit/table", handlers.table),
        Route("/ranklab/tryit/begin", handlers.begin, methods=["POST"]),
        Route("/ranklab/tryit/ask", handlers.ask, methods=["POST"]),
        Route("/ranklab/tryit/picture", handlers.picture, methods=["POST"]),
    ]


class TryHandlers:
    """One function per address."""

    def __init__(self, service: TryService) -> None:
        self._service = service
        self._askers = ThreadPoolExecutor(16, thread_name_prefix="ask")
        """They wait for the models; the threads of other addresses do not."""

    async def menu(self, request: Request) -> Response:
        more = request.query_params.get("more", "")[:40]
        return await answered(lambda: self._service.menu(more))

    async def described(self, request: Request) -> Response:
        given = query_of(request)
        return await answered(lambda: self._service.described(checked(Whom, given)), self._askers)

    async def table(self, request: Request) -> Response:
        given = query_of(request)
        return await answered(lambda: self._service.table(checked(Rows, given)))

    async def begin(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.begin_table(checked(Whom, body)))

    async def ask(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.ask(checked(Question, body)), self._askers)

    async def picture(self, request: Request) -> Response:
        """A picture as the body, whom to ask as the query. Another site's page cannot send this type unasked."""
        from starlette.exceptions import HTTPException

        if request.headers.get("content-type", "") != "application/octet-stream":
            raise HTTPException(415, "send application/octet-stream")
        given = query_of(request)
        drawn = given.pop("drawn", None) is True
        length = request.headers.get("content-length", "")
        picture = bytearray()
        try:
            check_picture(int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0)
            async for piece in request.stream():
                picture += piece
                check_picture(len(picture))
        except InputError as error:
            return refused([{"field": error.field, "message": str(error)}])
        return await answered(
            lambda: self._service.ask_picture(checked(Question, given), bytes(picture), drawn=drawn), self._askers
        )


def query_of(request: Request) -> dict[str, Any]:
    """The query's words, numbers as numbers; empty ones are left out."""
    given: dict[str, Any] = {}
    for name, value in request.query_params.items():
        if name in ("seed", "offset", "limit", "right") and value.isascii() and value.isdigit() and len(value) < 20:
            given[name] = int(value)
        elif name in ("up", "alone", "drawn"):
            given[name] = value == "1"
        elif value:
            given[name] = value[:LONGEST_QUERY]
    return given
