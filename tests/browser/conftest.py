"""The real page: `python app.py` in a process of its own, and Chromium in front of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.runs.big_store import add_with_curves, fill

ROOT = Path(__file__).parents[2]
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class App:
    """A running server."""

    address: str
    seconds_to_ready: float
    home: Path
    process: int


@dataclass
class FullApp(App):
    """curves: ids of comparisons that have some; the two differ in their metric."""

    curves: list[str]


def wait_until_served(address: str, process: subprocess.Popen[bytes], log: Path, limit: float = 60) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the page was not served:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app with an empty store."""
    with served(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture(scope="session")
def full_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullApp]:
    """The app over a store of 10,000 runs and two comparisons with curves, for all tests that need no empty one."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "home").mkdir()
    store = folder / "home" / "store.sqlite"
    fill(store)
    curves = [
        add_with_curves(store, "acceptability", "matthews_correlation"),
        add_with_curves(store, "rank_probe", "r2"),
    ]
    with served(folder) as made:
        yield FullApp(made.address, made.seconds_to_ready, made.home, made.process, curves)


@contextmanager
def served(home: Path) -> Iterator[App]:
    """The app with its store in a folder. SIGINT at the end, as Ctrl-C would."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    environment = {**os.environ, "RANKLAB_HOME": str(home / "home"), "GRADIO_SERVER_PORT": str(port)}
    environment.pop("OMP_NUM_THREADS", None)
    log = home / "log"
    with log.open("wb") as output:
        command = [sys.executable, str(ROOT / "app.py")]
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_served(address, process, log)
            yield App(address, time.monotonic() - start, home / "home", process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Visitor:
    """A browser window on the app that writes down what must not happen."""

    context: BrowserContext
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.goto(self.address + path)
        return page

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(f"console: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.complaints.append(f"other host: {url}")


@pytest.fixture
def visitor(app: App, browser: Browser) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    made = Visitor(context, app.address)
    yield made
    context.close()
    assert made.complaints == []
