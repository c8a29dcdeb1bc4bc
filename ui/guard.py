"""What every request passes before any address of ours or of Gradio's: whose page sent it, who is logged in, how much.

On every page: answers go to this page and to programs, not to pages of other sites, and where a login is set up nothing
but the form to log in is open without it. On a public page beside that: a closed list of addresses, the visitor's
cookie, rates, a bound on bodies and on requests that are open at once.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peft_core.runs import Refused
from ui.origins import is_foreign, is_known
from ui.public_limits import PublicLimits
from ui.quotas import Kind, Rates, Tally, wait_sentence, whole_seconds
from ui.visitors import COOKIE, NOBODY, Visitor, Visitors, cookie_header, visiting

KEY = "ranklab.visitor"
LARGEST_BODY = 1_000_000
FOREIGN = "This answers its own page and programs only, not pages of other sites."
UNKNOWN_NAME = "This page does not answer to that name; RANKLAB_ORIGINS says which names it has."
LOG_IN = "Log in first."
FULL = "Many requests from here are open; try again when one has been answered."
NO_COOKIE = (
    "This browser keeps no cookie of this page, so that nothing started now could be yours later. "
    "Open the page in a tab of its own, or allow its cookie."
)
GRADIO_FILES = r"/(assets|static|svelte)/.*|/favicon\.ico|/theme\.css"
STATIC = re.compile(GRADIO_FILES + r"|/ranklab/(static/.*|plotly\.min\.js)")
OPEN = re.compile(
    GRADIO_FILES + r"|/|/config/?|/robots\.txt|/manifest\.json|/login/?|/login/(huggingface|callback)|/logout|"
    r"/gradio_api/(user|login_check|app_id|startup-events|theme\.css)/?"
)
"""What is answered before a login: files of Gradio's, and what its form to log in asks."""
TAKEN = re.compile(
    OPEN.pattern + r"|/metrics|/ranklab/.*|/pwa_icon(/\d+)?|/gradio_api/("
    r"info/?|openapi\.json|heartbeat/[^/]+|queue/(join|data|status)|(call|run|api)/.+|cancel|reset/?)"
)
"""What a public page answers at all. Gradio's files, uploads, proxies and components' functions are not used here."""
HEALTH = ("/health", "/ranklab/health")
STARTS = re.compile(
    r"/ranklab/(start|again|resume|upload|preview|runs/(export|push)|tryit/(begin|ask|picture)|playground/(fit|draws))"
    r"|/gradio_api/(queue/join|(call|run|api)/.+)"
)
LARGE = ("/ranklab/upload", "/ranklab/tryit/picture")
"""These bound their own bodies."""


def visitor_of(scope: Mapping[str, Any]) -> Visitor:
    """Who the guard took the sender of a request for."""
    return cast(Visitor, scope.get(KEY, NOBODY))


@dataclass(frozen=True)
class Rules:
    """What a guard goes by. limits, visitors, rates: of a public page. origins: other sites whose pages may ask.

    names: what a page of one's own is called beside its address and localhost; None: it answers to any name.
    framed: the page stands in a frame of another site, as on a Space.
    """

    limits: PublicLimits = field(default_factory=PublicLimits)
    visitors: Visitors | None = None
    origins: frozenset[str] = frozenset()
    names: frozenset[str] | None = frozenset()
    framed: bool = False


def logged_in(scope: Mapping[str, Any], cookies: Mapping[str, str]) -> bool:
    """Whether Gradio's own login let the sender in, or there is none to pass."""
    app = scope["app"]
    if getattr(app, "auth", None) is None:
        return True
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(cookies.get(name) in app.tokens for name in names)


def kind_of(method: str, path: str) -> Kind:
    """Which rate a request counts against."""
    if method in ("GET", "HEAD"):
        return "read"
    if path.rstrip("/") == "/login":
        return "login"
    return "start" if STARTS.fullmatch(path) else "act"


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules, self._rates = app, rules, Rates(rules.limits)
        most = rules.limits.open_requests
        self._open = Tally(most, most * rules.limits.address, most * rules.limits.total, FULL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._rules.names is not None and not is_known(headers.get("host"), self._rules.names):
            await refuse(send, 403, UNKNOWN_NAME)
            return
        if is_foreign(scope["method"], headers, self._rules.origins):
            await refuse(send, 403, FOREIGN)
            return
        cookies = _cookies(headers)
        if not logged_in(scope, cookies) and not OPEN.fullmatch(scope["path"]):
            await refuse(send, 401, LOG_IN)
            return
        if self._rules.visitors is None:
            await self._own(scope, receive, send)
        else:
            await self._public(self._rules.visitors, cookies, scope, receive, send)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        """On a page of one's own only tries to log in are counted."""
        if kind_of(scope["method"], scope["path"]) == "login":
            wait = self._rates.take("login", Visitor(address=_peer(scope)))
            if wait > 0:
                await refuse(send, 429, wait_sentence(wait), wait)
                return
        await self._app(scope, receive, self._apart(send))

    async def _public(
        self, visitors: Visitors, cookies: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        forwarded = ",".join(headers.getlist("x-forwarded-for"))
        visitor, cookie = visitors.read(cookies.get(COOKIE, ""), _peer(scope), forwarded)
        send = self._signed(send, scope, cookie, given=visitor.known)
        if not TAKEN.fullmatch(path):
            await refuse(send, 403, "There is nothing here.")
            return
        kind = kind_of(method, path)
        wait = self._rates.take(kind, visitor)
        if wait > 0:
            await refuse(send, 429, wait_sentence(wait), wait)
            return
        browser = "sec-fetch-site" in headers and not path.startswith("/gradio_api/")
        if kind == "start" and browser and not visitor.known:
            await refuse(send, 403, NO_COOKIE)
            return
        try:
            self._open.enter(visitor)
        except Refused as error:
            await refuse(send, 429, str(error), 1.0)
            return
        scope[KEY] = visitor
        try:
            with visiting(visitor):
                await self._bounded(scope, receive, send)
        finally:
            self._open.leave(visitor)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose body arrives in time and is no larger than any that the page sends."""
        large, limits = scope["path"] in LARGE, self._rules.limits
        body = Body(receive, None if large else LARGEST_BODY, limits.upload_seconds if large else limits.body_seconds)
        begun = False

        async def tell(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        announced = Headers(scope=scope).get("content-length", "0")
        try:
            if not large and not (announced.isascii() and announced.isdigit() and int(announced[:20]) <= LARGEST_BODY):
                raise BadBody(413, "Too large.")
            await self._app(scope, body.receive, tell)
        except BadBody as error:
            if not begun:
                await refuse(send, error.status, error.sentence)

    def _signed(self, send: Send, scope: Scope, cookie: str, *, given: bool) -> Send:
        """`send` with the visitor's cookie where it is new. What is not the same for everybody is kept by no cache."""
        path, secure, apart = scope["path"], scope["scheme"] == "https", self._apart(send)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if not STATIC.fullmatch(path):
                    headers.setdefault("Cache-Control", "private, no-store")
                if path == "/" or not (given or STATIC.fullmatch(path)):
                    headers.append("Set-Cookie", cookie_header(cookie, framed=self._rules.framed, secure=secure))
            await apart(message)

        return tell

    def _apart(self, send: Send) -> Send:
        """`send` with what keeps the page out of other sites' frames, where a click could be led to its buttons."""
        frames = "'self'" + "".join(f" {origin}" for origin in sorted(self._rules.origins))
        if self._rules.framed:
            frames += " https://huggingface.co"

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
                headers["Content-Security-Policy"] = f"frame-ancestors {frames}"
            await send(message)

        return tell


class BadBody(Exception):
    """A body that is not taken."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Body:
    """The receiving end of a request, which gives up on a body that is too large or too slow. largest: bytes."""

    def __init__(self, receive: Receive, largest: int | None, seconds: float) -> None:
        self._receive, self._largest = receive, largest
        self._until, self._size, self._whole = time.monotonic() + seconds, 0, False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            raise BadBody(408, "The request took too long to arrive.") from None
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._largest is not None and self._size > self._largest:
            raise BadBody(413, "Too large.")
        return message


async def refuse(send: Send, status: int, sentence: str, wait: float = 0.0) -> None:
    """A refusal as the page's own: one sentence. wait: seconds, told to programs as Retry-After."""
    body = json.dumps({"errors": [{"field": "", "message": sentence}]}).encode()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    headers += [(b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", str(whole_seconds(wait)).encode())] if wait else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _cookies(headers: Headers) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in headers.getlist("cookie"):
        found |= cookie_parser(line)
    return found


def _peer(scope: Mapping[str, Any]) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""
