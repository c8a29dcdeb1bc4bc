"""Viewers of the page, without browsers: `python -m peft_core.commands._viewers`, a process of their own.

Each does what the page's scripts do in a tab that shows a comparison: it opens the page with the files that it names,
asks the Compare tab's questions in their order, then polls, 700 ms after each answer. Beside that it holds Gradio's
stream of heartbeats. Browsers would also load Gradio's own parts, once, from their cache the next time.

Standard input: a `Watch` as JSON. Standard output: lines of JSON, a phase's name when it begins, at last a `Seen`.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from peft_core.commands._page_client import FAILURES, Client

LIVE, RESTING = 0.7, 5.0
"""Seconds between polls, as in the page's script."""
WATCHING, CLOSING = "watching", "closing"


@dataclass(frozen=True)
class Watch:
    """What is watched. ids: comparisons, given to the viewers in turns. opening: seconds within which all have opened
    the page; watching: seconds from then on; closing: seconds for which the half that stays goes on alone."""

    address: str
    ids: list[str]
    viewers: int
    opening: float
    watching: float
    closing: float


@dataclass
class Seen:
    """What viewers saw.

    polls: (phase, ms from a request to the end of its answer). new: what came in a poll while all watched: (Unix time
    of the answer's end, run, first step, last step). failures: (phase, sentence). held: streams of heartbeats that were
    open until half of the tabs was closed.
    """

    polls: list[tuple[str, float]] = field(default_factory=list)
    new: list[tuple[float, str, int, int]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    held: int = 0


class Phases:
    """Which phase it is: everybody's."""

    now = "opening"


class Tab:
    """One viewer."""

    def __init__(self, address: str, comparison: str, seen: Seen, phases: Phases) -> None:
        self._client, self._id, self._seen, self._phases = Client(address), comparison, seen, phases
        self._shown: dict[str, Any] = {}
        self._after = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.holds = False
        """Whether its stream of heartbeats is open."""

    async def open(self) -> None:
        """What the browser asks until the page is complete; from then on it polls."""
        client = self._client
        page = (await client.file("")).decode(errors="replace")
        view = asyncio.create_task(client.get("ranklab/view", id=self._id))
        await asyncio.gather(*(client.file(name) for name in files_of(page)))
        self._begin(await view)
        self._tasks.append(asyncio.create_task(self._heart()))
        self._tasks.append(asyncio.create_task(self._poll()))
        await asyncio.gather(client.get("ranklab/recent"), self._form())

    async def _form(self) -> None:
        client, form = self._client, self._shown["form"]
        await client.get("ranklab/catalogue")
        budget = {name: form[name] for name in ("model", "task", "methods", "lock", "lock_to")}
        await asyncio.gather(
            client.get("ranklab/starts"),
            client.get("ranklab/benchmarks"),
            client.post("ranklab/budget", budget),
            client.post("ranklab/said", form),
        )

    def _begin(self, view: dict[str, Any]) -> None:
        self._shown, self._after = view, view["seq"]

    async def _heart(self) -> None:
        with suppress(*FAILURES):
            stream = await self._client.stream(f"gradio_api/heartbeat/{secrets.token_hex(5)}")
            self.holds = True
            while await stream.held():
                continue
        self.holds = False

    async def _poll(self) -> None:
        """As `poll` of the page's script: the next one is planned when an answer, or none, has come."""
        reference = self._shown["labels"][0]["label"]
        while True:
            await asyncio.sleep(RESTING if self._shown["ended"] else LIVE)
            started = time.perf_counter()
            try:
                data = await self._client.get("ranklab/view", id=self._id, after=self._after, reference=reference)
            except FAILURES as error:
                self._seen.failures.append((self._phases.now, f"{type(error).__name__}: {error}"))
                continue
            self._take(data, 1000 * (time.perf_counter() - started))

    def _take(self, data: dict[str, Any], milliseconds: float) -> None:
        seen, now = self._seen, time.time()
        seen.polls.append((self._phases.now, milliseconds))
        for run, columns in data["points"].items():
            if self._phases.now == WATCHING and (steps := columns["step"]["step"]):
                seen.new.append((now, run, steps[0], steps[-1]))
        changed = data["state"] != self._shown["state"]
        self._after = data["seq"]
        self._shown |= {"state": data["state"], "ended": data["ended"]}
        if changed:
            self._tasks.append(asyncio.create_task(self._recent()))

    async def _recent(self) -> None:
        with suppress(*FAILURES):
            await self._client.get("ranklab/recent")

    def check(self) -> None:
        """Raises what ended a part of this tab that goes on as long as it is open."""
        for task in self._tasks:
            if task.done() and (error := task.exception()):
                raise error

    def close(self) -> None:
        """As when a person closes the tab: whatever is open breaks off."""
        for task in self._tasks:
            task.cancel()
        self._client.close()


def files_of(page: str) -> list[str]:
    """The server's own files that the page's head names, its scripts' modules included."""
    head = page.partition("</head>")[0]
    named = re.findall(r"""(?:src|href)=["']([^"'#]+)""", head)
    modules = [f"ranklab/static/{name}" for name in re.findall(r'"([\w-]+\.js)"', head)]
    local = [name.removeprefix("./").lstrip("/") for name in [*named, *modules] if ":" not in name and "//" not in name]
    return list(dict.fromkeys(name for name in local if name))


async def watched(watch: Watch) -> Seen:
    """Open all, watch, close half, watch on, close the rest."""
    seen, phases = Seen(), Phases()
    tabs = [Tab(watch.address, watch.ids[n % len(watch.ids)], seen, phases) for n in range(watch.viewers)]
    try:
        await asyncio.gather(*(_later(tab, watch.opening * n / watch.viewers) for n, tab in enumerate(tabs)))
        await _phase(WATCHING, phases, watch.watching)
        seen.held = sum(tab.holds for tab in tabs)
        for tab in tabs[: watch.viewers // 2]:
            tab.close()
        await _phase(CLOSING, phases, watch.closing)
        for tab in tabs[watch.viewers // 2 :]:
            tab.check()
        return seen
    finally:
        phases.now = "closed"
        for tab in tabs:
            tab.close()


async def _later(tab: Tab, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await tab.open()


async def _phase(name: str, phases: Phases, seconds: float) -> None:
    phases.now = name
    print(json.dumps(name), flush=True)
    await asyncio.sleep(seconds)


def main() -> None:
    watch = Watch(**json.loads(sys.stdin.readline()))
    print(json.dumps(asdict(asyncio.run(watched(watch)))), flush=True)


if __name__ == "__main__":
    main()
