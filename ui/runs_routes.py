"""The addresses of the Runs tab under `ranklab/runs/`. JSON in, strict JSON out; archives as files."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from peft_core.records import InputError, checked
from peft_core.runs import RunQuery
from ui.logins import check_sender, login_of
from ui.pushes import Wanted
from ui.routes import answer, answered, body_of, readable
from ui.runs_service import RunsService

LONGEST_QUERY = 2000


def runs_routes(service: RunsService) -> list[BaseRoute]:
    """The routes, to be put in front of Gradio's own."""
    handlers = RunsHandlers(service)
    return [
        Route("/ranklab/runs/list", handlers.listed),
        Route("/ranklab/runs/run", handlers.run),
        Route("/ranklab/runs/curves", handlers.curves),
        Route("/ranklab/runs/exported", handlers.exported),
        Route("/ranklab/runs/archive", handlers.archive),
        Route("/ranklab/runs/pushed", handlers.pushed),
        Route("/ranklab/runs/note", handlers.note, methods=["POST"]),
        Route("/ranklab/runs/delete", handlers.delete, methods=["POST"]),
        Route("/ranklab/runs/undo", handlers.undo, methods=["POST"]),
        Route("/ranklab/runs/export", handlers.export, methods=["POST"]),
        Route("/ranklab/runs/push", handlers.push, methods=["POST"]),
    ]


class RunsHandlers:
    """One function per address."""

    def __init__(self, service: RunsService) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="runs")

    async def listed(self, request: Request) -> Response:
        given = {name: value[:LONGEST_QUERY] for name, value in request.query_params.items()}
        choices = given.pop("choices", "") == "1"
        for name in ("offset", "limit"):
            if name in given and given[name].isascii() and given[name].isdigit() and len(given[name]) < 10:
                given[name] = int(given[name])  # type: ignore[assignment]
        if "up" in given:
            given["up"] = given["up"] == "1"  # type: ignore[assignment]
        return await answered(lambda: self._service.listed(checked(RunQuery, given), choices=choices), self._threads)

    async def run(self, request: Request) -> Response:
        run = request.query_params.get("id", "")
        return await answered(lambda: self._service.run(run, login_of(request)), self._threads)

    async def curves(self, request: Request) -> Response:
        """``?run=id@seq`` for each run; without a number, all of it."""
        asked = [text.partition("@") for text in request.query_params.getlist("run")]
        wanted = [(run, int(seq) if seq.isascii() and seq.isdigit() and len(seq) < 19 else 0) for run, _, seq in asked]
        return await answered(lambda: self._service.curves(wanted), self._threads)

    async def exported(self, request: Request) -> Response:
        job = request.query_params.get("job", "")
        return await answered(lambda: self._service.export_state(job), self._threads)

    async def archive(self, request: Request) -> Response:
        job = request.query_params.get("job", "")
        try:
            path, name = await asyncio.to_thread(self._service.archive, job)
        except InputError as error:
            return answer({"errors": [{"field": error.field, "message": readable(str(error))}]}, 404)
        return FileResponse(path, media_type="application/zip", filename=name)

    async def note(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.note(str(body.get("id", "")), str(body.get("text", ""))))

    async def delete(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.delete(str(body.get("id", ""))))

    async def undo(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.undo(str(body.get("id", ""))))

    async def export(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.export(str(body.get("id", "")), str(body.get("format", ""))))

    async def push(self, request: Request) -> Response:
        """A token in the body goes to the process that pushes, and nowhere else."""
        body = await body_of(request)
        token = str(body.get("token", ""))
        run, kind, repository = (str(body.get(name, "")) for name in ("id", "format", "repository"))
        wanted = Wanted(run, kind, repository, new=body.get("existing") is not True)

        def begun() -> dict[str, str]:
            check_sender(request)
            return self._service.push(wanted, token, login_of(request))

        return await answered(begun, self._threads)

    async def pushed(self, request: Request) -> Response:
        job = request.query_params.get("job", "")
        return await answered(lambda: self._service.push_state(job), self._threads)
