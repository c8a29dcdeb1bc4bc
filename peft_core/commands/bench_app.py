"""``bench --what app``: many viewers of the page while two comparisons train, beside the bars of the page's server."""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peft_core.commands import _usage
from peft_core.commands._output import messages
from peft_core.commands._page_server import ROOT, Server, served
from peft_core.commands._viewers import CLOSING, WATCHING, Seen, Watch
from peft_core.methods import method_of_part
from peft_core.records import RunFailure
from peft_core.runs.folders import comparison_folder
from peft_core.training.environment import environment

COLUMNS = ("measurement", "bar", "value", "unit", "holds")
COMPARISONS = 2
SETTINGS = {
    "RANKLAB_CONCURRENCY": str(COMPARISONS),
    "RANKLAB_LOG_LEVEL": "debug",  # workers then write when they report what
    "RANKLAB_LOG_FORMAT": "json",
}
STEPS = 1_000_000
"""Of each run: more than are made in the time."""
TRAINS_WITHIN = 180.0
"""Seconds until both comparisons must be at work."""
OPENING = 0.2
"""Seconds between two viewers that open the page."""
CLOSED, SHORTEST_CLOSED, LONGEST_CLOSED = 0.25, 3.0, 30.0
"""Share of the duration for which half of them watches on, with the fewest and the most seconds of it."""
WARM, LONGEST_WARM = 0.25, 60.0
"""Share of the duration after which memory counts, and the most seconds of it."""
AT_AN_END = 10.0
"""Seconds of whose looks the memory is the median."""
REPORTED = re.compile(r"reports step at step (\d+)")


class Bar(NamedTuple):
    """What is measured, and the most that it may be; None: no bar, a figure to know."""

    measurement: str
    most: float | None
    unit: str


P50 = Bar("poll, request to response, p50", None, "ms")
P95 = Bar("poll, request to response, p95", 250, "ms")
P99 = Bar("poll, request to response, p99", 500, "ms")
WORST = Bar("poll, request to response, worst", None, "ms")
POLLS = Bar("polls answered", None, "a second")
FAILED = Bar("polls without an answer", 0, "polls")
EYE50 = Bar("from a record to a viewer, p50", None, "s")
EYE95 = Bar("from a record to a viewer, p95", 1.5, "s")
EYE99 = Bar("from a record to a viewer, p99", None, "s")
GROWTH = Bar("server's memory, from warm to the end", 5, "%")
WARM_MEMORY = Bar("server's memory once warm", None, "MiB")
END_MEMORY = Bar("server's memory at the end", None, "MiB")
WORKERS_MEMORY = Bar("workers' memory at the end", None, "MiB")
STEPS_MADE = Bar("steps of both comparisons", None, "a second")
CPU = tuple(Bar(f"processor time of the {name}", None, "cores") for name in ("server", "workers", "viewers"))
OTHERS_CPU = Bar("processor time of other programs", None, "cores")
GONE_P95 = Bar("half of the tabs closed: poll of the others, p95", 250, "ms")
GONE_FAILED = Bar("half of the tabs closed: polls of the others without an answer", 0, "polls")
GONE_STOPPED = Bar("half of the tabs closed: comparisons that train no more", 0, "comparisons")


@dataclass(frozen=True)
class Watched:
    """What was found out. started, closing, ended: monotonic seconds at which watching began, half of the tabs was
    closed, all was over. recorded: Unix times of steps by (run, step). steps: made from started to closing. stopped:
    comparisons that made no step since."""

    seen: Seen
    samples: Sequence[_usage.Sample]
    started: float
    closing: float
    ended: float
    recorded: dict[tuple[str, int], float]
    steps: int
    stopped: int


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every row. The page runs in a process of its own over a store of its own, the viewers in another one."""
    before = _usage.load_of_machine()
    with tempfile.TemporaryDirectory(prefix="ranklab-bench-") as folder:
        (Path(folder) / "home").mkdir()
        found = watch(Path(folder), options.viewers, options.duration)
    return {
        "what": f"{options.viewers} viewers while {COMPARISONS} comparisons train; holds: at most the bar",
        "viewers": options.viewers,
        "duration": options.duration,
        "rows": list(rows(found)),
        "failures": sorted({sentence for _, sentence in found.seen.failures})[:10],
        "streams_held": found.seen.held,
        "load_before": before,
        "load_after": _usage.load_of_machine(),
        "environment": environment(torch.device("cpu")),
    }


def watch(folder: Path, viewers: int, duration: float, comparisons: int = COMPARISONS) -> Watched:
    """Serve the page in `folder`, which holds an empty `home`, train, and have viewers watch.

    Raises:
        RunFailure: the page is not served, does not train, or the viewers could not open it.
    """
    with served(folder, SETTINGS) as server:
        ids = [_start(server, seed) for seed in range(comparisons)]
        _wait_until_they_train(server, ids)
        alone = max(SHORTEST_CLOSED, min(LONGEST_CLOSED, CLOSED * duration))
        plan = Watch(server.address, ids, viewers, OPENING * viewers, duration, alone)
        with _viewing(plan, folder / "viewers.log") as process, _usage.followed(server.process, process.pid) as usage:
            started, steps = _when(process, WATCHING, folder), _steps(server, ids)
            usage.look()
            messages.print(f"{viewers} viewers have opened the page; it is watched for {duration:g} s")
            closing, later = _when(process, CLOSING, folder), _steps(server, ids)
            usage.look()
            seen = Seen(**json.loads(_line(process, folder)))
            ended, last = time.monotonic(), _steps(server, ids)
        stopped = sum(last[name] <= later[name] for name in ids)
        made = sum(later.values()) - sum(steps.values())
        for name in ids:
            server.post("stop", id=name)
    return Watched(seen, usage.samples, started, closing, ended, recorded(folder / "home", ids), made, stopped)


def _start(server: Server, seed: int) -> str:
    yardstick = method_of_part("yardstick").id
    methods = [
        {"id": yardstick, "options": {"rank": "4"}},
        {"id": yardstick, "options": {"rank": "4", "boost.d": "2", "boost.sparsity": "0.5"}},
    ]
    training = {"steps": str(STEPS), "eval_every": "500"}
    sizes = {"train_rows": "1000", "eval_rows": "200", "seeds": str(seed), "training": training}
    made = server.post("start", model="tiny-text", task="sentiment", methods=methods, **sizes)
    if "id" not in made:
        raise RunFailure(f"the page refused to train: {made}")
    return str(made["id"])


def _steps(server: Server, ids: Iterable[str]) -> dict[str, int]:
    """Steps of all runs of each comparison."""
    views = {name: server.get(f"view?id={name}&after={2**40}") for name in ids}
    return {name: sum(run["step"] for run in view["runs"]) for name, view in views.items()}


def _wait_until_they_train(server: Server, ids: Sequence[str]) -> None:
    end = time.monotonic() + TRAINS_WITHIN
    while not all(_steps(server, ids).values()):
        states = [server.get(f"view?id={name}&after={2**40}")["state"] for name in ids]
        if time.monotonic() > end or not {"queued", "running"}.issuperset(states):
            raise RunFailure(f"the comparisons do not train: they are {', '.join(states)}")
        time.sleep(0.3)


# --- the viewers' process -------------------------------------------------------------------------------------------


@contextmanager
def _viewing(plan: Watch, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "peft_core.commands._viewers"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
        try:
            assert process.stdin
            process.stdin.write(json.dumps(asdict(plan)) + "\n")
            process.stdin.close()
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def _line(process: subprocess.Popen[str], folder: Path) -> str:
    assert process.stdout
    if line := process.stdout.readline():
        return line
    said = (folder / "viewers.log").read_text(encoding="utf-8", errors="replace")[-1000:]
    raise RunFailure(f"the viewers could not go on: {said}")


def _when(process: subprocess.Popen[str], phase: str, folder: Path) -> float:
    """The monotonic time at which a phase began."""
    found = json.loads(_line(process, folder))
    assert found == phase, found
    return time.monotonic()


# --- what it comes to -----------------------------------------------------------------------------------------------


def recorded(home: Path, ids: Iterable[str]) -> dict[tuple[str, int], float]:
    """Unix times at which workers reported steps, by (run, step), from their logs."""
    found: dict[tuple[str, int], float] = {}
    for name in ids:
        with (comparison_folder(home, name) / "worker.log").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (match := REPORTED.search(line)) and line.startswith("{"):
                    said = json.loads(line)
                    found[said["run"], int(match[1])] = datetime.fromisoformat(said["time"]).timestamp()
    return found


def delays(found: Watched) -> list[float]:
    """Seconds from every step's record to each viewer that was told of it in a poll."""
    every = (
        (at, found.recorded.get((run, step)))
        for at, run, first, last in found.seen.new
        for step in range(first, last + 1)
    )
    return [at - told for at, told in every if told is not None]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values do not exceed."""
    if not values:
        raise RunFailure("the viewers saw nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rows(found: Watched) -> Iterator[dict[str, Any]]:
    """Every measurement with its bar."""
    polls = {phase: [ms for its, ms in found.seen.polls if its == phase] for phase in (WATCHING, CLOSING)}
    failed = [phase for phase, _ in found.seen.failures]
    duration = found.closing - found.started
    yield from (row(bar, percentile(polls[WATCHING], p)) for bar, p in ((P50, 0.5), (P95, 0.95), (P99, 0.99)))
    yield row(WORST, max(polls[WATCHING]))
    yield row(POLLS, len(polls[WATCHING]) / duration)
    yield row(FAILED, failed.count(WATCHING))
    told = delays(found)
    yield from (row(bar, percentile(told, p)) for bar, p in ((EYE50, 0.5), (EYE95, 0.95), (EYE99, 0.99)))
    yield from _memory(found)
    yield row(STEPS_MADE, found.steps / duration)
    used = _usage.cores(found.samples, found.started, found.closing)
    yield from (row(bar, value) for bar, value in zip((*CPU, OTHERS_CPU), used, strict=True))
    yield row(GONE_P95, percentile(polls[CLOSING], 0.95))
    yield row(GONE_FAILED, failed.count(CLOSING))
    yield row(GONE_STOPPED, found.stopped)


def _memory(found: Watched) -> Iterator[dict[str, Any]]:
    duration = found.closing - found.started
    warm = found.started + min(LONGEST_WARM, WARM * duration)
    span = min(AT_AN_END, WARM * duration)
    begun, _ = _usage.memory_at(found.samples, warm, warm + span)
    ended, workers = _usage.memory_at(found.samples, found.closing - span, found.closing)
    yield row(GROWTH, 100 * (ended / begun - 1))
    for bar, size in ((WARM_MEMORY, begun), (END_MEMORY, ended), (WORKERS_MEMORY, workers)):
        yield row(bar, size / 2**20)


def row(bar: Bar, value: float) -> dict[str, Any]:
    """A row of the table. holds: whether the value is at most the bar, None without a bar."""
    return {
        "measurement": bar.measurement,
        "bar": bar.most,
        "value": value,
        "unit": bar.unit,
        "holds": None if bar.most is None else value <= bar.most,
    }
