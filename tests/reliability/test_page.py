"""The real page, `python app.py`: bad values, a second server, a locked store, SIGTERM, SIGKILL. The tests share one
server and its comparisons, so they go in their order; each can be run alone, too.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from peft_core.records import RunState, View
from peft_core.runs import Supervisor
from tests.hub_server import Fault, HubServer
from tests.reliability.support import Page, curve, gone, real, served, start_page
from tests.runs.support import states, steps_of, supervise, until
from ui.form import form_from_spec

pytestmark = pytest.mark.reliability
TRAINED = real("lora:rank=4,dropout=0.1", "bitfit", plan="apart", training={"steps": 150, "eval_every": 50})
LONG = real("lora:rank=4", training={"steps": 100_000, "eval_every": 50_000})
BAD = [
    ({"methods": [{"id": "lora", "options": {"rank": "0"}}]}, "methods.0.rank"),
    ({"methods": [{"id": "lora", "options": {"rank": "200"}}]}, "methods.0.rank"),
    ({"methods": [{"id": "capaboost_lora", "options": {"sparsity": "-0.5"}}]}, "methods.0.sparsity"),
    ({"methods": [{"id": "capaboost_lora", "options": {"sparsity": "1"}}]}, "methods.0.sparsity"),
    ({"methods": [{"id": "capaboost_lora", "options": {"sparsity": "1.5"}}]}, "methods.0.sparsity"),
    ({"methods": [{"id": "capaboost_lora", "options": {"d": "0"}}]}, "methods.0.d"),
    ({"training": {"learning_rate": "0"}}, "training.learning_rate"),
    ({"training": {"learning_rate": "-1"}}, "training.learning_rate"),
    ({"training": {"learning_rate": "nan"}}, "training.learning_rate"),
    ({"training": {"learning_rate": "1e400"}}, "training.learning_rate"),
    ({"training": {"batch_size": "0"}}, "training.batch_size"),
    ({"training": {"batch_size": "33"}, "train_rows": "32"}, "training.batch_size"),
    ({"training": {"epochs": "1e9"}}, "training.epochs"),
    ({"seeds": str(2**64)}, "seeds"),
    ({"training": {"max_length": "100000"}}, "training.max_length"),
]


class Server:
    """The page on one folder, started anew where it has been ended."""

    def __init__(self, folder: Path, hub: HubServer) -> None:
        self.home, self.log, self.hub = folder / "home", folder / "log", hub
        self._environment = hub.environment(folder / "cache") | {"HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "90"}
        self._stack = ExitStack()
        self._page: Page | None = None
        self._whole: str | None = None

    def page(self) -> Page:
        if self._page is None or self._page.process.poll() is not None:
            self._page = self._stack.enter_context(served(self.home, self.log, self._environment))
        return self._page

    def whole(self) -> str:
        """A comparison that nothing disturbs."""
        self._whole = self._whole or self.page().start(TRAINED)
        return self._whole

    def view(self, comparison_id: str) -> View:
        with Supervisor(self.home, executor="thread") as beside:
            return beside.view(comparison_id)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page")
    with HubServer(folder / "hub") as hub:
        made = Server(folder, hub)
        yield made
        made.close()
        hub.faults.clear()


def shown(page: Page, comparison_id: str) -> dict:
    return page.get(f"ranklab/view?id={comparison_id}")


def seen(page: Page, comparison_id: str) -> int:
    """The fewest steps of any of its runs."""
    return min(run["step"] for run in shown(page, comparison_id)["runs"])


def test_bad_values_are_refused_in_one_sentence_at_their_field(server):
    page = server.page()
    good = {"model": "tiny-text", "task": "acceptability", "methods": [{"id": "lora"}], "seeds": "1"}
    for change, field in BAD:
        answer = page.post("ranklab/start", good | change)
        assert [error["field"] for error in answer["errors"]] == [field], change
        assert "\n" not in answer["errors"][0]["message"]
    with Supervisor(server.home, executor="thread") as beside:
        assert beside.comparisons() == []


def test_a_second_server_on_the_folder_says_so_and_exits(server, tmp_path):
    page = server.page()
    server.whole()
    second = start_page(server.home, tmp_path / "log")
    assert second.process.wait(60) == 1
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-1] == f"Another RankLab server works on {server.home}; stop it, or set RANKLAB_HOME."
    assert not any("Traceback" in line for line in lines)
    assert page.process.poll() is None and shown(page, server.whole())["state"] != "interrupted"


def test_two_comparisons_of_one_name_are_two(server):
    page = server.page()
    server.whole()
    one, two = page.start(LONG), page.start(LONG)  # most likely they wait, and no worker is started for them
    assert one != two and shown(page, one)["title"] == shown(page, two)["title"]
    with Supervisor(server.home, executor="thread") as beside:
        assert beside.folder(one) != beside.folder(two)
    for made in (one, two):
        page.post("ranklab/stop", {"id": made})
    until(lambda: all(shown(page, made)["state"] == "cancelled" for made in (one, two)), 30)


HOLD = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
other.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
other.execute("ROLLBACK")
"""


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another process holds the store in an exclusive transaction."""
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        yield


def test_the_page_shows_what_it_has_while_another_process_locks_the_store(server):
    page, made = server.page(), server.whole()
    until(lambda: seen(page, made) >= 5, 90)
    slowest = 0.0
    with locked(server.home / "store.sqlite"):
        until_then = time.monotonic() + 2
        while time.monotonic() < until_then:
            started = time.monotonic()
            assert seen(page, made) >= 5 and page.get(f"ranklab/view?id={made}&after=3")["seq"] > 3
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.1)
    assert slowest < 5
    until(lambda: shown(page, made)["state"] == "finished", 90)
    view = server.view(made)
    assert all(steps_of(view, number) == list(range(1, 151)) for number in range(2))


@contextmanager
def open_requests(server: Server, page: Page) -> Iterator[None]:
    """Viewers whose streams are open, and a start with a model on a Hub that answers after a minute."""
    server.hub.faults[:] = [Fault("some/slow", delay=60.0, times=1000)]
    server.hub.requests.clear()
    look = json.dumps(form_from_spec(real(model="some/slow")).model_dump()).encode()
    asked = [b"GET /gradio_api/heartbeat/viewer%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(20)]
    asked += [
        b"POST /ranklab/start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(look), look)
    ]
    with ExitStack() as opened:
        for text in asked:
            viewer = opened.enter_context(socket.create_connection(("127.0.0.1", urlsplit(page.address).port)))
            viewer.sendall(text)
        until(lambda: any("some/slow" in path for path in server.hub.requests), 60)
        yield


def test_sigterm_lets_workers_save_and_a_run_goes_on_bit_for_bit_later(server):
    page, whole = server.page(), server.whole()
    broken, waiting = page.start(TRAINED), page.start(LONG)
    until(lambda: seen(page, broken) >= 20, 90)
    workers = page.workers()
    with open_requests(server, page):
        started = time.monotonic()
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(50) == 0
    assert time.monotonic() - started < 50, "five times the bar of 10 seconds"
    assert workers and all(gone(pid) for pid in workers)
    before, never = server.view(broken), server.view(waiting)
    assert states(before) == [RunState.INTERRUPTED] * 2 and 0 < before.runs[0].step < 150
    assert states(never) == [RunState.INTERRUPTED] and never.runs[0].step == 0, "nothing new was started"
    for run in before.runs:
        assert list((server.home / "comparisons" / broken / run.run / "checkpoints").glob("*.safetensors"))

    page = server.page()  # a new process
    assert shown(page, broken)["state"] == "interrupted"
    page.post("ranklab/resume", {"id": broken})
    until(lambda: shown(page, broken)["state"] == "finished", 120)
    until(lambda: shown(page, whole)["state"] == "finished", 120)
    after = server.view(broken)
    assert after.events[: len(before.events)] == before.events
    assert curve(after) == curve(server.view(whole))


def test_a_server_that_is_killed_leaves_no_worker_and_its_run_can_be_resumed(server):
    page = server.page()
    made = page.start(LONG)
    until(lambda: seen(page, made) >= 5, 90)
    workers = page.workers()
    page.process.kill()
    page.process.wait()
    assert workers
    until(lambda: all(gone(pid) for pid in workers), 15)
    with supervise(server.home, "thread", server=True) as after:
        view = after.view(made)
        assert states(view) == [RunState.INTERRUPTED]
        assert steps_of(view, 0) == list(range(1, view.runs[0].step + 1))
        assert not after.cancel(made), "it has ended, and what has ended can be resumed or deleted"
        after.delete(made)
