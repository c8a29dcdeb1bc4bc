"""The page's own addresses under `ranklab/`: files, views, commands. JSON in, strict JSON out."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from peft_core.records import InputError, checked, public_mode
from peft_core.runs.errors import Refused
from ui.engine import Warmup
from ui.form import Form, FormError, Look
from ui.scrub import scrubbed
from ui.service import Service
from ui.uploads import Uploads

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
LARGEST_BODY = 200_000
LONGEST_NAME = 500
MOST_LOOKING = 8
Endpoint = Callable[[Request], Awaitable[Response]]


def routes(service: Service, warmup: Warmup, uploads: Uploads) -> list[BaseRoute]:
    """The routes, to be put in front of Gradio's own."""
    handlers = Handlers(service, warmup, uploads)
    return [
        Route("/ranklab/plotly.min.js", plotly_js),
        Mount("/ranklab/static", StaticFiles(directory=STATIC)),
        Route("/ranklab/view", handlers.view),
        Route("/ranklab/recent", handlers.recent),
        Route("/ranklab/catalogue", handlers.catalogue),
        Route("/ranklab/benchmarks", handlers.benchmarks),
        Route("/ranklab/presets", handlers.presets),
        Route("/ranklab/measured", handlers.measured),
        Route("/ranklab/download", handlers.download),
        Route("/ranklab/preview", handlers.preview, methods=["POST"]),
        Route("/ranklab/upload", handlers.upload, methods=["POST"]),
        Route("/ranklab/budget", handlers.budget, methods=["POST"]),
        Route("/ranklab/start", handlers.start, methods=["POST"]),
        Route("/ranklab/again", handlers.again, methods=["POST"]),
        Route("/ranklab/stop", handlers.stop, methods=["POST"]),
        Route("/ranklab/resume", handlers.resume, methods=["POST"]),
    ]


async def plotly_js(_request: Request) -> Response:
    """plotly.min.js of the installed plotly package. Marked as not to be compressed: that would take longer here."""
    import plotly

    path = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    headers = {"Cache-Control": "public, max-age=86400", "Content-Encoding": "identity"}
    return FileResponse(path, media_type="text/javascript", headers=headers)


def answer(data: Any, status: int = 200) -> Response:
    body = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body, status, media_type="application/json", headers={"Cache-Control": "no-store"})


def refused(errors: list[dict[str, str]]) -> Response:
    """A refusal is an answer like any other (200): a browser writes every 4xx into its console as an error."""
    return answer({"errors": errors})


async def answered(work: Callable[[], Any], threads: Executor | None = None) -> Response:
    """The work's result from a thread that knows whose request it is, or its complaint as one sentence at its field."""
    here = contextvars.copy_context()
    return await told(asyncio.get_running_loop().run_in_executor(threads, here.run, work))


async def told(result: Awaitable[Any]) -> Response:
    """A result, or the complaint that it raises."""
    try:
        return answer(await result)
    except FormError as error:
        return refused([{"field": entry.field, "message": readable(entry.message)} for entry in error.errors])
    except InputError as error:
        return refused([{"field": error.field, "message": readable(str(error))}])
    except Refused as error:
        return refused([{"field": "", "message": readable(str(error))}])


def readable(sentence: str) -> str:
    """A refusal as it is told: on a public page without folders of the server."""
    return scrubbed(sentence) if public_mode() else sentence


class Handlers:
    """One function per address."""

    def __init__(self, service: Service, warmup: Warmup, uploads: Uploads) -> None:
        self._service, self._warmup, self._uploads = service, warmup, uploads
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="reader")
        """Looks at data take long; in threads of their own they keep no poll waiting."""
        self._looking = 0

    async def view(self, request: Request) -> Response:
        query = request.query_params
        after = query.get("after", "0")
        start = int(after) if after.isdigit() and len(after) < 19 else 0
        reference, table = query.get("reference"), query.get("table") == "1"
        return await answered(lambda: self._service.view(query.get("id") or None, start, reference, table))

    async def recent(self, _request: Request) -> Response:
        return await answered(self._service.recent)

    async def catalogue(self, _request: Request) -> Response:
        """Asked for after the first paint, so this is when the engine may be imported."""
        self._warmup.now()
        return await answered(self._service.catalogue)

    async def benchmarks(self, _request: Request) -> Response:
        return await answered(self._service.benchmarks, self._readers)

    async def measured(self, _request: Request) -> Response:
        """Asked for when its part of the page is opened."""
        return await answered(self._service.measured, self._readers)

    async def presets(self, request: Request) -> Response:
        task = request.query_params.get("task", "")[:LONGEST_NAME]
        return await answered(lambda: self._service.presets(task))

    async def preview(self, request: Request) -> Response:
        body = await body_of(request)
        if self._looking >= MOST_LOOKING:
            return refused([{"field": "", "message": "Many tables are being looked at now; try again in a moment."}])
        self._looking += 1
        try:
            return await answered(lambda: self._service.preview(checked(Look, body)), self._readers)
        finally:
            self._looking -= 1

    async def upload(self, request: Request) -> Response:
        """A file as the body, its name as ``?name=``. Another site's page cannot send this type unasked."""
        from starlette.exceptions import HTTPException

        if request.headers.get("content-type", "") != "application/octet-stream":
            raise HTTPException(415, "send application/octet-stream")
        name = request.query_params.get("name", "")[:LONGEST_NAME]
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdigit() and len(length) < 19 else None

        async def kept() -> dict[str, Any]:
            path = await self._uploads.receive(name, request.stream(), announced)
            return {"task": self._uploads.task_of(path), "title": path.name, "bytes": path.stat().st_size}

        try:
            return await told(kept())
        except ClientDisconnect:
            return refused([{"field": "task", "message": "The upload was broken off; nothing was kept."}])

    async def download(self, request: Request) -> Response:
        query = request.query_params
        try:
            name, media, text = await asyncio.to_thread(
                self._service.download, query.get("id", ""), query.get("format", "json"), query.get("reference")
            )
        except InputError as error:
            return answer({"errors": [{"field": error.field, "message": readable(str(error))}]}, 404)
        except Refused as error:
            return answer({"errors": [{"field": "", "message": str(error)}]}, 403)
        return Response(text, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    async def budget(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._budget(body))

    def _budget(self, body: dict[str, Any]) -> list[dict[str, Any] | None]:
        form = checked(Form, body)
        return self._service.budget(form)

    async def start(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: {"id": self._service.start(checked(Form, body))})

    async def again(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: {"id": self._service.again(str(body.get("id", "")))})

    async def stop(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.stop(str(body.get("id", ""))))

    async def resume(self, request: Request) -> Response:
        body = await body_of(request)
        return await answered(lambda: self._service.resume(str(body.get("id", ""))))


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Only `application/json`, which another site's page cannot send unasked."""
    from starlette.exceptions import HTTPException

    if request.headers.get("content-type", "").split(";")[0] != "application/json":
        raise HTTPException(415, "send application/json")
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LARGEST_BODY:
            raise HTTPException(413, "too large")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise HTTPException(400, "not JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "not a JSON object")
    return body
