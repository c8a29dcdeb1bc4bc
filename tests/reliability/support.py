"""What the tests of reliability share: a disk of a given size, the real page, the real engine's comparisons."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from peft_core.records import ComparisonSpec, MethodSpec, TrainingConfig, View

ROOT = Path(__file__).parents[2]


def real(*methods: str, **changes: Any) -> ComparisonSpec:
    """A comparison of the real engine on the small embedded model. changes: of the training, or of the comparison."""
    training = {"steps": 40, "batch_size": 8, "eval_every": 10} | changes.pop("training", {})
    values = {"model": "tiny-text", "task": "acceptability", "seeds": (0,), "train_rows": 200, "eval_rows": 50}
    chosen = tuple(MethodSpec.parse(method) for method in methods or ("lora:rank=4",))
    return ComparisonSpec(**values | changes, methods=chosen, training=TrainingConfig(**training))


def curve(view: View) -> dict[tuple[str, str, int], object]:
    """Everything that was measured, but for times."""
    told: dict[tuple[str, str, int], object] = {}
    for event in view.events:
        if event["event"] != "state":
            number = event["run"].rpartition("-")[2]
            timeless = {key: value for key, value in event.items() if key not in ("run", "seq", "seconds")}
            assert told.setdefault((number, event["event"], event["step"]), timeless) is timeless
    return told


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory of that size at a new folder; the test is skipped where this user cannot mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> int:
    """Write to a file until the disk is full; return the bytes."""
    with file.open("ab", buffering=0) as opened:
        for block in (2**20, 2**12, 1):
            try:
                while True:
                    opened.write(b"\xff" * block)
            except OSError:
                continue
    return file.stat().st_size


def fill_but(file: Path, left: int) -> None:
    """Write to a file until so many bytes are left on its disk."""
    with file.open("ab", buffering=0) as opened:
        while (free := shutil.disk_usage(file.parent).free) > left + 2**12:
            opened.write(b"\xff" * min(2**20, free - left))


@dataclass
class Page:
    """The real page, `python app.py`, in a process of its own."""

    process: subprocess.Popen[bytes]
    address: str
    home: Path
    log: Path

    def get(self, path: str) -> Any:
        return _answer(urllib.request.Request(self.address + path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        return _answer(urllib.request.Request(self.address + path, json.dumps(body).encode(), headers))

    def start(self, spec: ComparisonSpec) -> str:
        from ui.form import form_from_spec

        return str(self.post("ranklab/start", form_from_spec(spec).model_dump())["id"])

    def workers(self) -> list[int]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child.pid for child in children if "peft_core.runs.worker" in " ".join(child.cmdline())]


def _answer(request: urllib.request.Request) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no strict JSON")

    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read(), parse_constant=refuse)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_page(home: Path, log: Path, environment: dict[str, str] | None = None) -> Page:
    """Start the page on a folder for its runs; it may not answer yet."""
    port = free_port()
    own = {"RANKLAB_HOME": str(home), "GRADIO_SERVER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")],
            env={**os.environ, **own, **(environment or {})},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Page(process, f"http://127.0.0.1:{port}/", home, log)


@contextmanager
def served(home: Path, log: Path, environment: dict[str, str] | None = None) -> Iterator[Page]:
    """The page, answering. It is ended by SIGTERM where the test has not ended it."""
    page = start_page(home, log, environment)
    try:
        until = time.monotonic() + 150
        while True:
            assert page.process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            try:
                page.get("ranklab/view")
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield page
    finally:
        if page.process.poll() is None:
            page.process.send_signal(signal.SIGTERM)
            try:
                page.process.wait(20)
            except subprocess.TimeoutExpired:
                page.process.kill()
                page.process.wait()
