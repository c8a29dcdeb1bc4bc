"""The real page in a process of its own, over a store of its own: what measurements of the page ask."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_core.records import RunFailure

ROOT = Path(__file__).parents[2]
START_LIMIT, STOP_LIMIT = 120.0, 20.0
"""Seconds until the page must be served, and until its process must have ended."""
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """address: ends with a slash. seconds_to_ready: from the start of the process to the first answer.

    process: the id of its process.
    """

    address: str
    seconds_to_ready: float
    process: int

    def get(self, path: str) -> Any:
        """The JSON of an address under ``ranklab/``."""
        with _opener.open(f"{self.address}ranklab/{path}", timeout=START_LIMIT) as answer:
            return json.loads(answer.read())

    def post(self, path: str, **body: Any) -> Any:
        """The JSON that an address under ``ranklab/`` answers to a JSON object."""
        with _opener.open(self._question(path, body, {}), timeout=START_LIMIT) as answer:
            return json.loads(answer.read())

    def seconds_of(self, path: str, **body: Any) -> float:
        """From a question, with what a browser says of itself, to the last byte of its answer.

        Raises:
            RunFailure: the page refused it.
        """
        request = self._question(path, body, {"Accept-Encoding": "gzip, deflate, br"})
        start = time.perf_counter()
        with _opener.open(request, timeout=START_LIMIT) as answer:
            raw = answer.read()
        seconds = time.perf_counter() - start
        if raw.startswith(b'{"errors"'):
            raise RunFailure(f"the page refused {path} of {body}: {raw.decode()}")
        return seconds

    def _question(self, path: str, body: Any, headers: dict[str, str]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", **headers}
        return urllib.request.Request(f"{self.address}ranklab/{path}", json.dumps(body).encode(), headers)


@contextmanager
def served(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The page as `python app.py` serves it, with its store in folder/home; ended afterwards as by Ctrl-C.

    Args:
        settings: variables of the server's environment; beside them it has none of RankLab's.

    Raises:
        RunFailure: it is not served; with the end of its log.
    """
    port, log = _free_port(), folder / "log"
    address = f"http://127.0.0.1:{port}/"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RANKLAB_", "GRADIO_", "OMP_"))}
    environment = kept | {"RANKLAB_HOME": str(folder / "home"), "GRADIO_SERVER_PORT": str(port)}
    environment |= settings or {}
    app = ROOT / "app.py"
    command = [sys.executable, str(app)] if app.is_file() else [sys.executable, "-m", "peft_core", "serve"]
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
        try:
            _wait_until_served(address, process, log)
            yield Server(address, time.perf_counter() - start, process.pid)
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_served(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < end:
        try:
            _opener.open(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RunFailure(f"the page was not served: {log.read_text(encoding='utf-8', errors='replace')[-1000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
