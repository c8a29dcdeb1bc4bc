"""The hostile sheet against a real `python app.py` with RANKLAB_PUBLIC=1: nothing leaks, and the server stays whole."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from peft_core.records import RunState, StateRecord, run_specs
from peft_core.runs import Store
from peft_core.runs.visits import Visit
from tests.reliability.hostile_sheet import CALLS, INPUTS, JSON, Input, form
from tests.report.sample import METRIC, sample_result, sample_spec, step_events
from ui.visitors import COOKIE, Visitors, key_of

pytestmark = pytest.mark.reliability
ROOT = Path(__file__).parents[2]
HOST_SECRET = "hf_secretOfTheHostThatNobodySees"
STEPS = 20
SETTINGS = {
    "STARTS_PER_MINUTE": "60000", "ACTS_PER_SECOND": "1000", "READS_PER_SECOND": "1000", "BODY_SECONDS": "1.5",
    "UPLOAD_MIB": "1", "QUEUE": "3", "ADDRESS_COMPARISONS": "3", "VISITOR_COMPARISONS": "2",
}  # fmt: skip


@dataclass
class Page:
    """The served page, and what another visitor has on it. words: what stands in the sheet for what there is."""

    port: int
    home: Path
    process: subprocess.Popen[bytes]
    cookie: str
    words: dict[str, str]
    secrets: list[str]
    log: Path
    echoed: str = ""
    """What was sent before and may come back."""
    leaks: list[str] = field(default_factory=list)

    def told(self, text: str) -> str:
        for word, value in self.words.items():
            text = text.replace(word, value)
        return text

    def ask(
        self, verb: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers of an answer, looked through for what nobody may be told."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.putrequest(verb, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has refused before all was sent
                connection.send(body or b"")
            answer = connection.getresponse()
            try:
                got = answer.read().decode("utf-8", "replace")
            except http.client.IncompleteRead as broken_off:  # Gradio ends a stream of an unknown session so
                got = broken_off.partial.decode("utf-8", "replace")
            told = dict(answer.getheaders())
        asked = f"{verb} {path[:200]}"
        sent = path + (body or b"").decode("utf-8", "replace") + self.echoed
        for secret in self.secrets:
            if secret in got + str(told) and secret not in sent:
                self.leaks.append(f"{asked}: {secret}")
        return answer.status, got, told

    def ask_as(self, cookie: str, path: str, body: Any = None) -> tuple[int, str]:
        headers = {"Cookie": f"{COOKIE}={cookie}"} | ({"Content-Type": JSON} if body is not None else {})
        content = None if body is None else json.dumps(body).encode()
        status, got, _ = self.ask("GET" if body is None else "POST", path, content, headers)
        return status, got


def add(store: Store, visit: Visit, task: str, label_note: str) -> str:
    """A finished comparison of another visitor."""
    spec = sample_spec(steps=STEPS, seeds=(0,)).model_copy(update={"task": task})
    made = store.add(spec, "nobody", visit)
    store.apply(made, [{"notice": {"metric": METRIC, "baseline_score": 0.0}}])
    for run in run_specs(made, spec):
        states = [StateRecord(run=run.run, step=0, state=RunState.RUNNING)]
        states += [
            StateRecord(
                run=run.run, step=STEPS, state=RunState.FINISHED, result=sample_result(run.label, 0, 0.5, STEPS)
            )
        ]
        first, last = ({"event": state.model_dump(mode="json")} for state in states)
        events = [
            {"event": event} for step in range(1, STEPS + 1) for event in step_events(run.run, run.label, 0, step, 10)
        ]
        store.apply(made, [first, *events, last])
    store.write_note(made, label_note)
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("hostile")
    home, port, log = folder / "home", free_port(), folder / "log"
    home.mkdir()
    visitors = Visitors(key_of(home))
    alice, value = visitors.read("", "192.0.2.7")
    kept = home / "uploads" / f"{alice.address}-{alice.id}" / "ab12" / "secret_names.csv"
    kept.parent.mkdir(parents=True)
    kept.write_text("text,label\nAda Lovelace,secret_diagnosis\n")
    upload = "upload:" + kept.relative_to(home / "uploads").as_posix()
    with contextlib.closing(Store(home / "store.sqlite")) as store:
        hers = add(store, Visit(alice.id, alice.address, True), upload, "my diary")
        shared = add(store, Visit(alice.id, alice.address, False), "acceptability", "my diary, too")
    link = folder / "harmless.txt"
    link.symlink_to("/etc/passwd")
    words = {
        "SHARED": shared, "HERS": hers, "ALICE": f"{hers}-0", "STORE": str(home / "store.sqlite"), "UPLOAD": upload,
        "KEY": str(home / "visitors.key"), "LINK": str(link), "PORT": str(port), "TOKEN": value.partition(".")[0],
        "HASH": alice.id, "ENCODED": quote(str(home / "store.sqlite"), safe=""),
        "TWICE": quote(quote(str(home / "store.sqlite"), safe=""), safe=""),
    }  # fmt: skip
    secrets = [str(folder), str(ROOT), sys.prefix, "Traceback", alice.id, value.partition(".")[0], HOST_SECRET]
    secrets += ["secret_names", "secret_diagnosis", "Ada Lovelace", "diary", hers, "root:x:0:0"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RANKLAB_")}
    environment |= {f"RANKLAB_PUBLIC_{name}": text for name, text in SETTINGS.items()}
    environment |= {"RANKLAB_PUBLIC": "1", "RANKLAB_HOME": str(home), "GRADIO_SERVER_PORT": str(port)}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_TOKEN": HOST_SECRET, "HF_HOME": str(folder / "hf")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")], env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    made = Page(port, home, process, "", words, secrets, log)
    try:
        made.cookie = _cookie_once_served(made)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cookie_once_served(page: Page) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end and page.process.poll() is None:
        with contextlib.suppress(OSError):
            _, _, headers = page.ask("GET", "/ranklab/catalogue")
            return headers["set-cookie"].partition("=")[2].partition(";")[0]
        time.sleep(0.1)
    raise AssertionError(page.log.read_text()[-3000:])


@pytest.fixture(autouse=True)
def nothing_leaks(page: Page) -> Iterator[None]:
    """In any test of this file."""
    yield
    found, page.leaks = page.leaks, []
    assert found == []


@pytest.mark.parametrize("given", INPUTS, ids=lambda given: given.name)
def test_an_input(page: Page, given: Input):
    headers = {name: page.told(text) for name, text in given.headers.items()}
    if given.cookie:
        headers["Cookie"] = f"{COOKIE}={page.cookie}"
    content = given.content
    if content is not None:
        headers |= {"Content-Type": given.kind} if given.kind else {}
        content = page.told(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    status, got, told = page.ask(given.verb, page.told(given.path), content, headers)
    assert status in given.status, (status, got[:500])
    assert given.says in got, got[:500]
    assert not given.never or page.told(given.never) not in got
    assert "x-evil" not in {name.lower() for name in told}
    assert page.process.poll() is None


@pytest.mark.parametrize("function, values, says", CALLS)
def test_a_function_for_programs(page: Page, function: str, values: list[Any], says: str):
    page.echoed = page.told(json.dumps({"data": values}))
    filled = json.loads(page.echoed)
    status, got = page.ask_as(page.cookie, f"/gradio_api/call/{function}", filled)
    if status == 200:
        status, got = page.ask_as(page.cookie, f"/gradio_api/call/{function}/{json.loads(got)['event_id']}")
        assert "event: error" in got, got[:500]
        assert says in got, got[:500]
    page.echoed = ""
    assert status in (200, 400, 422)


def raw(page: Page, sent: bytes, wait: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", page.port), timeout=wait) as connection:
        connection.sendall(sent)
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := connection.recv(65536):
                got += piece
        return got


def test_bytes_that_are_no_request(page: Page):
    assert b" 400 " in raw(page, b"GET /\r\nX: y\x00\r\n\r\n\r\n")[:40]
    split = b"GET /ranklab/view?id=a HTTP/1.1\r\nHost: x\r\nX-A: b\r\nSet-Cookie: c=d\r\nConnection: close\r\n\r\n"
    assert b"c=d" not in raw(page, split)
    both = (
        b"POST /ranklab/start HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert b" 200 " not in raw(page, both, 2.5)[:20]
    negative = (
        b"POST /ranklab/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n"
    )
    assert b" 400 " in raw(page, negative)[:40]


def test_a_websocket_is_closed(page: Page):
    asked = b"GET /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    asked += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert b" 101 " not in raw(page, asked, 2.0)[:20]


def test_slow_bodies_are_given_up(page: Page):
    head = "POST /ranklab/start HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
    started = time.monotonic()
    with ThreadPoolExecutor(20) as many:
        answers = list(many.map(lambda _: raw(page, head.encode(), 10.0), range(20)))
    assert all(b" 408 " in got[:20] for got in answers), answers[0]
    assert time.monotonic() - started < 8
    assert page.ask("GET", "/ranklab/recent")[0] == 200


@pytest.mark.parametrize(
    "name, content",
    [
        ("zip.csv", b"PK\x03\x04" + b"\x00" * 200),
        ("gzip.csv", gzip.compress(b"text,label\n" + b"a,b\n" * 100)),
        ("bomb.csv.gz", gzip.compress(b"text,label\n" + b"a" * 60_000_000 + b",b\n")),
        ("open.csv", b'text,label\n"never closed' + b",b\n" * 1000),
        ("nul.csv", b"text,label\na\x00b,c\n"),
        ("latin.csv", "text,label\ncaf\u00e9,yes\n".encode("latin-1")),
        ("wide.csv", b",".join(b"c%d" % n for n in range(100_000)) + b"\n"),
        ("header.csv", b"text,label\n"),
        ("formula.csv", b"text,label\n=cmd|' /C calc'!A0,yes\n<script>alert(1)</script>,no\n" * 40),
        ("bomb.zip", zlib.compress(b"\x00" * 10_000_000)),
    ],
)
def test_a_table_that_is_none(page: Page, name: str, content: bytes):
    headers = {"Cookie": f"{COOKIE}={page.cookie}", "Content-Type": "application/octet-stream"}
    status, got, _ = page.ask("POST", f"/ranklab/upload?name={name}", content, headers)
    assert status == 200
    assert "task" in json.loads(got), got
    task = json.loads(got)["task"]
    assert task.startswith("upload:")
    status, got = page.ask_as(page.cookie, "/ranklab/preview", {"task": task, "model": "tiny-text"})
    assert status == 200
    found = json.loads(got)
    assert "errors" in found or found["problems"] or name in ("formula.csv", "latin.csv"), got[:500]


def test_200_starts_at_once(page: Page):
    """Each with a cookie of its own, as who throws cookies away would send them: the address counts."""
    visitors = Visitors(key_of(page.home))

    def begin(_: int) -> str:
        return page.ask_as(visitors.issue(), "/ranklab/start", form(training={"steps": "400"}))[1]

    seen: list[tuple[int, str, int]] = []

    def look(over: threading.Event) -> None:
        while not over.is_set():
            status, text = page.ask_as(page.cookie, f"/ranklab/view?id={page.words['SHARED']}")
            shown = json.loads(text)
            seen.append((status, json.dumps(shown["points"]), shown["seq"]))

    over = threading.Event()
    with ThreadPoolExecutor(17) as many:
        viewer = many.submit(look, over)
        answers = [json.loads(text) for text in many.map(begin, range(200))]
        over.set()
        viewer.result(60)
    assert len(seen) > 3 and len(set(seen)) == 1 and seen[0][0] == 200 and seen[0][2] >= STEPS, "viewers lose nothing"
    started = [answer["id"] for answer in answers if "id" in answer]
    said = {answer["errors"][0]["message"] for answer in answers if "errors" in answer}
    assert 1 <= len(started) <= int(SETTINGS["ADDRESS_COMPARISONS"])
    assert len(started) + sum("errors" in answer for answer in answers) == 200
    assert all(any(word in sentence for word in ("as many as one", "queue is full")) for sentence in said), said
    places = [json.loads(page.ask_as(page.cookie, f"/ranklab/view?id={name}")[1])["queue_place"] for name in started]
    assert len([place for place in places if place is not None]) >= len(started) - 1


def test_the_owner_may_do_what_others_may_not(page: Page):
    """Else the refusals above would prove nothing."""
    alice = Visitors(key_of(page.home))
    cookie = f"{page.words['TOKEN']}.{alice._keyed('cookie', page.words['TOKEN'])}"
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=120)
    with contextlib.closing(connection):

        def ask(path: str, body: Any = None) -> Any:
            headers = {"Cookie": f"{COOKIE}={cookie}", "Content-Type": JSON}
            connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
            return json.loads(connection.getresponse().read())

        hers = page.words["HERS"]
        assert ask(f"/ranklab/view?id={hers}")["own"] is True
        assert ask("/ranklab/runs/list?search=diary")["total"] == 4
        assert ask("/ranklab/runs/note", {"id": f"{hers}-0", "text": "mine"}) is None
        assert ask(f"/ranklab/runs/run?id={hers}-0")["note"] == "mine"
        assert ask("/ranklab/runs/delete", {"id": hers})["seconds"] > 0
        assert ask("/ranklab/runs/undo", {"id": hers}) is None
        assert ask(f"/ranklab/download?id={hers}&format=json")["runs"]


def test_no_process_of_the_page_has_a_secret_of_the_host(page: Page):
    """Of what a process was started with: of the page itself that is the host's own."""
    if not Path("/proc").is_dir():
        pytest.skip("the environment of another process is Linux's to show")
    children = psutil.Process(page.process.pid).children(recursive=True)
    workers = [child for child in children if "peft_core.runs.worker" in " ".join(child.cmdline())]
    assert workers, "comparisons of the test before this one wait or train"
    for child in children:
        environment = child.environ()
        assert HOST_SECRET not in environment.values(), child.cmdline()
        assert not [
            name for name in environment if "TOKEN" in name and "PARALLEL" not in name and "IMPLICIT" not in name
        ]
        assert environment["RANKLAB_PUBLIC"] == "1"


def test_afterwards_the_server_is_up_and_the_store_is_whole(page: Page):
    assert page.process.poll() is None
    assert page.ask("GET", "/")[0] == 200
    with contextlib.closing(sqlite3.connect(page.home / "store.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT note FROM comparisons WHERE id = ?", (page.words["SHARED"],)).fetchone() == (
            "my diary, too",
        )
    outside = [path for path in page.home.rglob("*evil*") if page.home / "uploads" not in path.parents]
    assert outside == []
    log = page.log.read_text(errors="replace")
    assert not [word for word in ("Ada Lovelace", HOST_SECRET, page.words["TOKEN"], page.cookie) if word in log]
