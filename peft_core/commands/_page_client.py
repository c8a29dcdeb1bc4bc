"""What of a browser's HTTP a viewer needs: up to six kept connections to one server, JSON, a stream that is held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

CONNECTIONS = 6
"""As many as browsers have to one host."""
LIMIT = 30.0
"""Seconds that an answer may take."""
AS_A_BROWSER = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-US,en;q=0.9",
    "Connection": "keep-alive",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) RankLab bench",
}
FAILURES = (OSError, EOFError, ValueError, TimeoutError)
"""What a question may end with instead of an answer: broken off, no HTTP or JSON, a refusal, too late."""


class Head(NamedTuple):
    """headers: their names in small letters."""

    status: int
    headers: dict[str, str]


class Connection:
    """One kept connection. used: whether it has answered before."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self.used = reader, writer, False

    async def ask(self, request: bytes) -> Head:
        """Send a request; the head of its answer."""
        self._writer.write(request)
        await self._writer.drain()
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines[1:] if line)
        return Head(int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in pairs})

    async def body(self, head: Head) -> bytes:
        """The rest of an answer, as it was sent."""
        if head.headers.get("transfer-encoding") == "chunked":
            parts = []
            while part := await self._chunk():
                parts.append(part)
            found = b"".join(parts)
        else:
            found = await self._reader.readexactly(int(head.headers.get("content-length", "0")))
        self.used = True
        return found

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def held(self) -> bytes:
        """The next that a stream says."""
        return await self._chunk()

    def close(self) -> None:
        self._writer.close()


class Client:
    """A tab's connections to the server at `address`, which ends with a slash."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port, self._root = str(parts.hostname), parts.port or 80, parts.path
        self._headers = {"Host": parts.netloc, "Referer": address, **AS_A_BROWSER}
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of an address; keep no copy, as the page's own questions say.

        Raises:
            one of `FAILURES`.
        """
        more = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
        return _taken(await self._whole("GET", f"{path}?{urlencode(query)}" if query else path, more, b""))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return _taken(await self._whole("POST", path, {"Content-Type": "application/json"}, json.dumps(body).encode()))

    async def file(self, path: str) -> bytes:
        """A file of the page, as it was sent."""
        return await self._whole("GET", path, {}, b"")

    async def stream(self, path: str) -> Connection:
        """A stream of events, held in a connection of its own until it is closed."""
        connection = await self._new()
        head = await connection.ask(self._request("GET", path, {"Accept": "text/event-stream"}, b""))
        if head.status != 200:
            raise ValueError(f"{path}: {head.status}")
        return connection

    def close(self) -> None:
        for connection in self._all:
            connection.close()
        self._all, self._free = set(), []

    async def _whole(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        async with self._places, asyncio.timeout(LIMIT):
            request = self._request(method, path, headers, body)
            while True:
                connection = self._free.pop() if self._free else await self._new()
                try:
                    head = await connection.ask(request)
                    found = await connection.body(head)
                except BaseException as error:
                    self._drop(connection)
                    if connection.used and isinstance(error, EOFError | ConnectionError):
                        continue  # the server had closed it while it was idle: browsers ask again, too
                    raise
                self._free.append(connection)
                if head.status != 200:
                    raise ValueError(f"{path}: {head.status}")
                return found

    async def _new(self) -> Connection:
        connection = Connection(*await asyncio.open_connection(self._host, self._port))
        self._all.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._all.discard(connection)

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        all_headers = {**self._headers, **headers, **({"Content-Length": str(len(body))} if body else {})}
        lines = [f"{method} {self._root}{path} HTTP/1.1", *(f"{name}: {text}" for name, text in all_headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


def _taken(raw: bytes) -> Any:
    found = json.loads(raw)
    if isinstance(found, dict) and "errors" in found:
        raise ValueError(str(found["errors"]))
    return found
