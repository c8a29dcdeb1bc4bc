"""A sweep of 100,000 cells on 100 nodes, simulated: what a cluster makes of it while nodes are lost.

    python scripts/simulate_cluster.py --out assets/benchmarks/cluster.json

The decisions are the product's own: how cells are dealt to workers, which go next, what of a job is left when its node
is lost, how often it begins again (`runs/sweep.py`, `runs/ray_worker.py`). Simulated are time, nodes and training, with
the learning rates of a method in turns and a checkpoint of each after every half minute of its training. A cell takes
as long as a trial that was measured in assets/sweeps/learning_rates.json, drawn by a seed. Beside the JSON a table is
written as Markdown and a chart as SVG. About half a minute on one core.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import random
import shlex
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.records import ComparisonSpec, MethodSpec, TrainingConfig, run_specs
from peft_core.runs.job import Job
from peft_core.runs.process import COLD_START
from peft_core.runs.ray_options import RayOptions
from peft_core.runs.ray_worker import PAUSE_SECONDS, RayWorker
from peft_core.runs.sweep import Cell, Dealer, dealt
from peft_core.training.checkpoint import write_atomically
from peft_core.training.loop import LATEST_SECONDS
from scripts.benchmarking.cluster_chart import busy_nodes

MEASURED = Path(__file__).parents[1] / "assets" / "sweeps" / "learning_rates.json"
TASKS = ("acceptability", "sentiment", "similarity", "entailment")
METHODS = tuple(f"lora:rank={rank}" for rank in range(1, 26))
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
NOTICED, REPLACED = 10.0, 600.0
"""Seconds until the cluster notices that a node is gone, and until another one is in its place."""


@dataclass(frozen=True)
class Case:
    """What is simulated. failures: share of the nodes that are lost in an hour; longer: factor of a cell's seconds."""

    name: str
    failures: float
    longer: float = 1.0
    cells: int = 100_000
    nodes: int = 100


CASES = (
    Case("cells as measured, no node lost", 0.0),
    Case("cells as measured, 1 % of the nodes lost an hour", 0.01),
    Case("cells 40 times as long, no node lost", 0.0, 40.0),
    Case("cells 40 times as long, 1 % of the nodes lost an hour", 0.01, 40.0),
)


def cells(number: int) -> list[Cell]:
    """A grid of tasks, seeds, methods and learning rates, in the order of a sweep, cut at a number of cells."""
    made: list[Cell] = []
    for seed in count():
        for task in TASKS:
            spec = _spec(task, seed)
            for method in METHODS:
                for rate in RATES:
                    if len(made) == number:
                        return made
                    setting = MethodSpec.parse(f"{method},learning_rate={rate}")
                    made.append(Cell(f"{len(made):024d}", method, setting, seed, spec))
    raise AssertionError


def _spec(task: str, seed: int) -> ComparisonSpec:
    method = MethodSpec.parse(METHODS[0])
    return ComparisonSpec(
        model="tiny-text", task=task, methods=(method,), seeds=(seed,), training=TrainingConfig(steps=160)
    )


@dataclass
class Post:
    """A worker of the sweep with its cells by run, and the node that it is on.

    done: seconds of training that a run has had, those that were lost left out. saved: of these, what the checkpoint
    held that it began with last. since: when its runs had what `done` says.
    """

    worker: RayWorker
    cells: dict[str, Cell]
    left: set[str]
    node: int | None = None
    number: int = 0
    at_work: list[str] = field(default_factory=list)
    done: dict[str, float] = field(default_factory=dict)
    saved: dict[str, float] = field(default_factory=dict)
    since: float | None = None

    @property
    def in_turns(self) -> list[str]:
        """The runs that take turns now: the learning rates of one method."""
        method = self.cells[self.at_work[0]].method
        return [run for run in self.at_work if self.cells[run].method == method]

    def advance(self, now: float) -> None:
        """What its runs have had by now."""
        assert self.since is not None
        runs = self.in_turns
        for run in runs:
            self.done[run] += (now - self.since) / len(runs)
        self.since = now

    def lose(self, now: float) -> float:
        """Takes its runs back to their last checkpoints; gives the seconds of training that this costs."""
        if self.since is None:
            return 0.0
        self.advance(now)
        cost, self.since = 0.0, None
        for run in self.in_turns:
            kept = self.saved[run] + (self.done[run] - self.saved[run]) // LATEST_SECONDS * LATEST_SECONDS
            cost += self.done[run] - kept
            self.done[run] = self.saved[run] = kept
        return cost


class Cluster:
    """Nodes in simulated time. It is the executor that the workers speak to.

    Args:
        seconds: of every cell, by its key.
    """

    def __init__(self, case: Case, seconds: Mapping[str, float], seed: int, folder: Path) -> None:
        self.options = RayOptions()
        self.now, self.busy, self.lost, self.starts = 0.0, 0.0, 0.0, 0
        self.nodes_lost, self.begun_again, self.finished = 0, 0, 0
        self.levels: list[tuple[float, int]] = [(0.0, 0)]
        self._case, self._seconds, self._folder = case, seconds, folder
        self._random, self._order = random.Random(seed), count()
        self._events: list[tuple[float, int, str, Any]] = []
        self._free = deque(range(case.nodes))
        self._down: set[int] = set()
        self._pending: deque[Post] = deque()
        self._posts: dict[int, Post] = {}
        for node in range(case.nodes):
            self._expect_loss(node)

    # --- what a worker asks of its executor ---

    def tell(self, line: Mapping[str, Any]) -> None:
        """Nothing listens: what the workers do is decided here."""

    def again(self, worker: RayWorker) -> None:
        self.begun_again += 1
        self._at(PAUSE_SECONDS, "due", self._posts[id(worker)])

    def forget(self, worker: RayWorker, number: int | None) -> None:
        """A worker has come to its end, which `run` sees."""

    # --- the sweep ---

    def run(self, todo: Sequence[Cell]) -> None:
        """Trains all cells; `jobs` of the sweep is the number of nodes."""
        dealer, posts = Dealer(dealt(todo)), 0
        while dealer.waiting or posts:
            while dealer.waiting and posts < self._case.nodes:
                self._begin(dealer.take())
                posts += 1
            self._place()
            ended = self._next()
            if ended is not None:
                posts -= 1
                left = [cell for run, cell in ended.cells.items() if run in ended.left]
                ending = ended.worker.ended()
                if left and not (ending is not None and dealer.give_back(left, ending.how == "killed")):
                    raise RuntimeError("cells were left for another call of the sweep")

    def _begin(self, group: Sequence[Cell]) -> None:
        spec = group[0].spec.model_copy(update={"methods": tuple(cell.setting for cell in group)})
        by_run = {run.run: cell for run, cell in zip(run_specs("sweep", spec), group, strict=True)}
        job = Job(comparison="sweep", spec=spec, runs=tuple(by_run), folder=self._folder, resume=True)
        worker = RayWorker(job, self)
        nothing = dict.fromkeys(by_run, 0.0)
        self._posts[id(worker)] = post = Post(worker, by_run, set(by_run), done=nothing, saved=dict(nothing))
        self._pending.append(post)

    def _place(self) -> None:
        while self._pending and self._free:
            post, post.node = self._pending[0], self._free.popleft()
            self._pending.popleft()
            self.starts += 1
            post.number += 1
            post.at_work = list(post.worker.begin(self.starts)["job"]["runs"])
            self._at(COLD_START, "trains", (post, post.number))
            self._level()

    def _next(self) -> Post | None:
        """Lets time pass until the next event; the post whose worker has ended by it."""
        self.now, _, what, about = heapq.heappop(self._events)
        if what == "due":
            self._pending.append(about)
        elif what == "lost":
            self._lose(about)
        elif what == "noticed":
            post, number = about
            if post.number == number:
                post.worker.hear({"lost": "the node was lost"})
                return self._over(post) if post.worker.ended() else None
        elif what == "back":
            self._down.discard(about)
            self._free.append(about)
            self._expect_loss(about)
        elif about[0].number == about[1] and about[0].node is not None:
            return self._trained(about[0], what)
        return None

    def _trained(self, post: Post, what: str) -> Post | None:
        """A worker has started, or has finished a cell."""
        if what == "finished":
            post.advance(self.now)
            run = min(post.in_turns, key=lambda run: self._left(post, run))
            post.at_work.remove(run)
            self.busy += self._seconds[post.cells[run].key]
            self.finished += 1
            post.left.discard(run)
            post.worker.hear({"reports": [{"event": {"event": "state", "run": run, "state": "finished", "step": 160}}]})
            post.worker.inbox.take(0.0)
        if not post.at_work:
            post.worker.hear({"ending": {"how": "done", "reason": "", "log": ""}})
            assert post.node is not None
            self._free.append(post.node)
            post.node = None
            self._level()
            return self._over(post)
        post.since, runs = self.now, post.in_turns
        self._at(max(0.0, min(self._left(post, run) for run in runs)) * len(runs), "finished", (post, post.number))
        return None

    def _left(self, post: Post, run: str) -> float:
        return self._seconds[post.cells[run].key] - post.done[run]

    def _over(self, post: Post) -> Post:
        self._posts.pop(id(post.worker))
        return post

    def _lose(self, node: int) -> None:
        """A node is gone, with what the cells at work on it had done since their last checkpoints."""
        self.nodes_lost += 1
        self._down.add(node)
        self._at(REPLACED, "back", node)
        if node in self._free:
            self._free.remove(node)
        for post in self._posts.values():
            if post.node == node:
                post.node = None
                self.lost += post.lose(self.now)
                self._at(NOTICED, "noticed", (post, post.number))
        self._level()

    def _expect_loss(self, node: int) -> None:
        if self._case.failures:
            self._at(self._random.expovariate(self._case.failures / 3600), "lost", node)

    def _at(self, seconds: float, what: str, about: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what, about))

    def _level(self) -> None:
        self.levels.append((self.now, self._case.nodes - len(self._free) - len(self._down)))


def simulate(case: Case, measured: Sequence[float], seed: int) -> dict[str, Any]:
    """One case's figures."""
    todo, draw = cells(case.cells), random.Random(seed)
    seconds = {cell.key: draw.choice(measured) * case.longer for cell in todo}
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(case, seconds, seed, Path(folder))
        cluster.run(todo)
    total = sum(seconds.values())
    ideal = total / case.nodes
    return {
        "case": case.name,
        "cells": case.cells,
        "finished": cluster.finished,
        "nodes": case.nodes,
        "failures_an_hour": case.failures,
        "cell_seconds_mean": total / case.cells,
        "makespan_hours": cluster.now / 3600,
        "ideal_hours": ideal / 3600,
        "of_the_ideal": cluster.now / ideal,
        "cells_an_hour": case.cells / cluster.now * 3600,
        "utilisation": total / (case.nodes * cluster.now),
        "nodes_lost": cluster.nodes_lost,
        "begun_again": cluster.begun_again,
        "workers_started": cluster.starts,
        "lost_node_hours": cluster.lost / 3600,
        "lost_share": cluster.lost / total,
        "busy": _thinned(cluster.levels, cluster.now),
    }


def _thinned(levels: Sequence[tuple[float, int]], end: float, points: int = 240) -> list[list[float]]:
    """The fewest nodes at work in each of so many parts of the time, which is what a chart can show."""
    found, place, last = [], 0, 0
    for part in range(points):
        until, low = end * (part + 1) / points, None
        while place < len(levels) and levels[place][0] <= until:
            last = levels[place][1]
            low = last if low is None or last < low else low
            place += 1
        found.append([round(until / 3600, 4), last if low is None else low])
    return found


def page(document: dict[str, Any]) -> str:
    """The Markdown table of a document."""
    lines = [
        f"# A sweep of {document['cases'][0]['cells']:,} cells on {document['cases'][0]['nodes']} nodes, simulated",
        "",
        "Written by `scripts/simulate_cluster.py` from the JSON beside it. Time, nodes and training are simulated; how"
        " cells are dealt, what is left of a job when its node is lost and when it begins again is decided by the code"
        f" that does so in a sweep. A cell takes as long as one of {document['measured_trials']} measured trials of the"
        f" sweep in assets/sweeps/learning_rates.json ({document['measured_on']}), drawn by seed {document['seed']}. A"
        f" worker takes {COLD_START:g} s to start, a lost node is noticed after {NOTICED:g} s and replaced after"
        f" {REPLACED:g} s. The learning rates of a method take turns; a cell whose node was lost goes on from its last"
        f" checkpoint, at most {LATEST_SECONDS:g} s of its training ago.",
        "",
        "| case | cells an hour | hours | of the ideal | nodes at work | nodes lost | work lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["cases"]:
        lines.append(
            f"| {row['case']} | {row['cells_an_hour']:,.0f} | {row['makespan_hours']:.2f} | {row['of_the_ideal']:.4f} "
            f"| {100 * row['utilisation']:.2f} % | {row['nodes_lost']} | {100 * row['lost_share']:.4f} % |"
        )
    lines += ["", "![Nodes at work](cluster.svg)", "", "```bash", document["command"], "```", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate a sweep on a cluster.")
    parser.add_argument("--out", type=Path, default=Path("assets/benchmarks/cluster.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=100)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    measured = [trial["seconds"] for trial in found["trials"] if trial["seconds"]]
    cases = [Case(case.name, case.failures, case.longer, options.cells, options.nodes) for case in CASES]
    document = {
        "what": "a sweep's scheduling in simulated time; seconds of a cell drawn from measured trials",
        "command": shlex.join(["python", "scripts/simulate_cluster.py", *sys.argv[1:]]),
        "seed": options.seed,
        "measured_trials": len(measured),
        "measured_on": found["environments"][0].get("device_name"),
        "cases": [simulate(case, measured, options.seed) for case in cases],
    }
    write_atomically(options.out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    write_atomically(options.out.with_suffix(".md"), page(document).encode())
    write_atomically(options.out.with_suffix(".svg"), busy_nodes(document["cases"]).encode())


if __name__ == "__main__":
    main()
