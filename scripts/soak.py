"""Real runs in a row on the real page: whether its memory stays.

    python scripts/soak.py                    # 200 runs; some twenty minutes on two cores
    python scripts/soak.py --runs 40

The page is started on a folder of its own; comparisons are started and watched over HTTP, as a browser does. After
every `--every` runs the memory (resident set) of the page's process is printed; its workers are other processes and
end with their comparison. The first line is what later ones are compared with: by then everything is imported. Ends
with status 1 where the last one is more than `--limit` percent above it, or a run did not finish.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
METHODS = ("lora", "capaboost_lora", "bitfit", "adapter_pfeiffer", "prefix")
WAIT = 300.0
"""Seconds that a comparison, or the start of the page, may take."""


class Page:
    """The page in a process of its own, as its visitors reach it."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self._address = f"http://127.0.0.1:{port}/ranklab/"
        environment = {**os.environ, "RANKLAB_HOME": str(home), "GRADIO_SERVER_PORT": str(port)}
        self.process = subprocess.Popen([sys.executable, str(ROOT / "app.py")], env=environment, cwd=ROOT)

    def wait_until_served(self) -> None:
        until = time.monotonic() + WAIT
        while self.process.poll() is None and time.monotonic() < until:
            try:
                self.ask("view")
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise SystemExit("the page was not served")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, sent, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def train(page: Page, runs: int) -> None:
    """One comparison of so many runs, watched to its end."""
    form = {
        "model": "tiny-text",
        "task": "acceptability",
        "methods": [{"id": method} for method in METHODS[:runs]],
        "seeds": "1",
        "train_rows": "64",
        "eval_rows": "32",
        "training": {"steps": "10", "batch_size": "8"},
    }
    started = page.ask("start", form)
    if "id" not in started:
        raise SystemExit(f"it was not started: {started}")
    until, seen = time.monotonic() + WAIT, 0
    while time.monotonic() < until:
        view = page.ask(f"view?id={started['id']}&after={seen}")
        seen = view["seq"]
        if view["ended"]:
            break
        time.sleep(0.4)
    if view["state"] != "finished":
        raise SystemExit(f"a comparison is {view['state']}: {[run['error'] for run in view['runs']]}")


def soak(page: Page, runs: int, every: int) -> list[int]:
    """Bytes of the page's process after every so many runs."""
    memory: list[int] = []
    for ended in range(every, runs + 1, every):
        for part in range(0, every, len(METHODS)):
            train(page, min(len(METHODS), every - part))
        memory.append(page.memory())
        grown = 100 * (memory[-1] / memory[0] - 1)
        print(f"{ended:4d} runs  {memory[-1] / 2**20:8.1f} MiB  {grown:+6.2f} %", flush=True)
    return memory


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="in all (200)")
    parser.add_argument("--every", type=int, default=10, help="runs between two looks at the memory (10)")
    parser.add_argument("--limit", type=float, default=5.0, help="most growth in percent (5)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ranklab-soak-") as home:
        page = Page(Path(home))
        try:
            page.wait_until_served()
            memory = soak(page, given.runs, given.every)
        finally:
            page.end()
    good = bool(memory) and memory[-1] <= (1 + given.limit / 100) * memory[0]
    print(f"at most {given.limit:g} % was allowed: {'kept' if good else 'NOT kept'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
