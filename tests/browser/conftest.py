"""The real page: `python app.py` in a process of its own, and Chromium in front of it."""

from __future__ import annotations

import json
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
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright
from xdist.scheduler import LoadScopeScheduling

from peft_core.commands._page_browser import ARGUMENTS as CHROMIUM_ARGUMENTS
from tests.runs.big_store import add_with_curves, fill

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VIEWPORT: ViewportSize = {"width": 1440, "height": 1000}
AT_WORK = {"queued", "running", "stopping"}

# A busy machine may take long over a first start; what is expected is asked at once and then again and again.
expect.set_options(timeout=30_000)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class App:
    """A running server. menu_at_first: what the Try it tab's menu said of an empty store."""

    address: str
    seconds_to_ready: float
    home: Path
    process: int
    menu_at_first: dict[str, Any] = field(default_factory=dict)


@dataclass
class FullApp(App):
    """curves: ids of comparisons that have some; the two differ in their metric."""

    curves: list[str] = field(default_factory=list)


class ByServer(LoadScopeScheduling):
    """Gives all tests of one server to one process: with ``-n 2`` each process has one server and one browser."""

    def _split_scope(self, nodeid: str) -> str:
        return server_of(nodeid.partition("::")[0])


@cache
def server_of(file: str) -> str:
    return "full" if "full_app" in (ROOT / file).read_text(encoding="utf-8") else "empty"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


def get(app: App, path: str) -> bytes:
    with urllib.request.urlopen(f"{app.address}ranklab/{path}", timeout=60) as answer:
        return answer.read()


def post(app: App, path: str, **body: Any) -> Any:
    request = urllib.request.Request(
        f"{app.address}ranklab/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def finished(app: App, *ids: str) -> None:
    """Waits until comparisons are finished."""
    waiting, end = list(ids), time.monotonic() + 90
    while waiting:
        assert time.monotonic() < end, f"{waiting} did not finish"
        if json.loads(get(app, f"view?id={waiting[0]}"))["state"] == "finished":
            waiting.pop(0)
        else:
            time.sleep(0.2)


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


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app with a store that is empty at first and fills with what the tests train."""
    with served(tmp_path_factory.mktemp("served")) as made:
        made.menu_at_first = json.loads(get(made, "tryit/menu"))
        yield made


@pytest.fixture(scope="package")
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
        yield FullApp(made.address, made.seconds_to_ready, made.home, made.process, curves=curves)


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


@pytest.fixture(scope="package")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A browser with a profile, so that it keeps what it fetched and compiled from one test to the next."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=chromium, args=CHROMIUM_ARGUMENTS, viewport=VIEWPORT
        )
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def browser(window: BrowserContext) -> Browser:
    """For windows of other visitors, which share nothing with the first."""
    assert window.browser
    return window.browser


@dataclass
class Visitor:
    """A browser window on the app that writes down what must not happen."""

    context: BrowserContext
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "", asked: list[str] | None = None) -> Page:
        """asked: gets the addresses that the page asks for, without the server's."""
        page = self.context.new_page()
        if asked is not None:
            page.on("request", lambda request: asked.append(request.url.removeprefix(self.address)))
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
def visitor(app: App, window: BrowserContext) -> Iterator[Visitor]:
    """Somebody who comes for the first time. What a test left at work is stopped, so that the next need not wait."""
    made = Visitor(window, app.address)
    yield made
    blank, *opened = window.pages
    for page in opened:
        page.close()
    window.unroute_all()
    window.clear_cookies()
    origin = {"origin": app.address.rstrip("/"), "storageTypes": "local_storage,indexeddb"}
    window.new_cdp_session(blank).send("Storage.clearDataForOrigin", origin)
    for one in json.loads(get(app, "recent")):
        if one["state"] in AT_WORK:
            post(app, "stop", id=one["id"])
    assert made.complaints == []
