"""Choosing how a comparison is executed, from what was measured or by a rule. Plain numbers in, a `Plan` out.

Candidates: its runs one after another in turns with one or all threads; spread over workers with one thread each;
folded into one batch (lockstep); folded in each of several workers. `probe.py` measures, this file decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from peft_core.records import FEW_STEPS, Offer, Plan

SMALL_MODEL = 10_000_000
"""Parameters below which several threads gain too little to be worth their waiting for each other."""
WORKER_GAIN = 0.9
"""What a further worker is assumed to add where a core is idle for it: it shares the memory's bandwidth."""
CLEARLY = 0.9
"""A plan replaces a simpler one where it takes less than this share of its time."""
WORKER_BYTES = 600 * 2**20
"""Memory of a worker before it has loaded a model."""


def threads_for(parameters: int | None, cores: int | None = None) -> int:
    """CPU threads a worker computes with where nothing was measured: one for a small model, else one a core.

    At the embedded models' size a second thread gains little, and costs much when another program is busy. The number
    is noted in the plan. Where cores are not said, OMP_NUM_THREADS bounds them: what started this process sets it.
    """
    if parameters is not None and parameters < SMALL_MODEL:
        return 1
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        given = os.environ.get("OMP_NUM_THREADS", "")
        cores = min(cores, int(given)) if given.isdecimal() and int(given) else cores
    return cores


@dataclass(frozen=True)
class Measured:
    """Throughputs in steps of all runs a second.

    alone: by threads, runs in turns. folded: by threads, all runs that can be folded in one batch and the others in
    turns; with one thread it may be of a share of them. share: one worker's share so, with one thread. idle: cores that
    did nothing while one thread worked.
    """

    alone: Mapping[int, float]
    folded: Mapping[int, float] = field(default_factory=dict)
    share: float | None = None
    idle: float = 0.0


@dataclass(frozen=True)
class Work:
    """What is to be done. steps: of all runs together; evaluations: in as many steps that take as long."""

    steps: int
    evaluations: float = 0.0

    def seconds(self, rate: float, alone: float) -> float:
        """How long it takes at `rate` steps a second, and `alone` of runs in turns: each run is evaluated by itself."""
        return self.steps / rate + self.evaluations / alone


@dataclass(frozen=True)
class Candidate:
    """A way to execute a comparison. rate: steps of all runs a second; seconds: from now to the end of all runs."""

    execution: Literal["apart", "lockstep"]
    workers: int
    threads: int
    rate: float
    seconds: float

    @property
    def name(self) -> str:
        how = "in lockstep" if self.execution == "lockstep" else "in turns"
        if self.workers > 1:
            return f"{self.workers} workers, each {how} with one thread"
        return f"one worker, {how} with {_threads(self.threads)}"


def candidates(measured: Measured, offer: Offer, workers: int, work: Work) -> list[Candidate]:
    """What can be chosen, the simplest first.

    Args:
        workers: the most that can be had, within the offer, the runs and the memory.
    """
    alone = measured.alone
    found = [Candidate("apart", 1, threads, rate, work.seconds(rate, rate)) for threads, rate in alone.items()]
    for threads, rate in measured.folded.items():
        found.append(Candidate("lockstep", 1, threads, rate, work.seconds(rate, alone[threads])))
    gain = workers if offer.own_cores else 1 + min(workers - 1, measured.idle) * WORKER_GAIN
    if workers > 1 and 1 in alone:
        seconds = work.seconds(alone[1] * gain, alone[1] * gain) + offer.start_seconds
        found.append(Candidate("apart", workers, 1, alone[1] * gain, seconds))
    if workers > 1 and 1 in alone and measured.share is not None:
        seconds = work.seconds(measured.share * gain, alone[1] * gain) + offer.start_seconds
        found.append(Candidate("lockstep", workers, 1, measured.share * gain, seconds))
    return found


def best(found: Sequence[Candidate]) -> Candidate:
    """The one that ends first; a simpler one where that takes hardly longer."""
    soonest = min(candidate.seconds for candidate in found)
    return next(candidate for candidate in found if candidate.seconds * CLEARLY <= soonest)


def why_measured(chosen: Candidate, found: Sequence[Candidate], alone: Sequence[str] = ()) -> str:
    """The sentence for the page. alone: why runs do not advance with others."""
    said = f"{_capital(chosen.name)}: about {chosen.rate:.3g} steps a second by a short measurement"
    others = [candidate for candidate in found if candidate is not chosen]
    if others:
        second = max(others, key=lambda candidate: candidate.rate)
        far = chosen.rate / second.rate
        clear = far * CLEARLY >= 1
        said += f", {far:.2f} times {second.name}" if clear else f"; {second.name}, would not end clearly sooner"
    return f"{said}.{_by_themselves(chosen.execution, alone)}"


def why_rule(threads: int, steps: int, offer: Offer | None) -> str:
    """The sentence for the page where nothing was measured."""
    said = f"One worker, in turns with {_threads(threads)}"
    if offer is None or steps >= FEW_STEPS:
        return f"{said}: there was nothing to choose."
    return f"{said}: {steps} steps are done before another way would pay."


def why_not_measured(threads: int) -> str:
    """The sentence for the page where a copy of a run failed."""
    return f"One worker, in turns with {_threads(threads)}: a run's first steps failed, so nothing could be measured."


def why_given(execution: Literal["apart", "lockstep"], workers: int, threads: int, alone: Sequence[str] = ()) -> str:
    """The sentence for the page where the comparison asks for a plan."""
    name = _capital(Candidate(execution, workers, threads, 1.0, 1.0).name)
    return f"{name}, as the comparison asks.{_by_themselves(execution, alone)}"


def why_not_as_asked(asked: str, threads: int, alone: Sequence[str] = ()) -> str:
    """The sentence for the page where what the comparison asks for comes down to one worker with runs in turns."""
    lacking = "no two of its runs can advance together" if asked == "lockstep" else "there is room for one"
    wanted = "lockstep" if asked == "lockstep" else "several workers"
    said = f"One worker, in turns with {_threads(threads)}: the comparison asks for {wanted}, and {lacking}."
    return said + _by_themselves(asked, alone)


def _by_themselves(execution: str, alone: Sequence[str]) -> str:
    return f" By itself: {'; '.join(alone)}." if alone and execution == "lockstep" else ""


def shares(costs: Mapping[str, float], kinds: Mapping[str, str], workers: int) -> tuple[tuple[str, ...], ...]:
    """Runs dealt to workers so that all end at about the same time; the first run is in the first share.

    Args:
        costs: by run id, in the comparison's order.
        kinds: by run id; runs of one kind go to one worker where that costs no balance: what is worked out for one is
            known for the next.
    """
    alike: dict[str, list[str]] = {}
    for run in costs:
        alike.setdefault(kinds[run], []).append(run)
    together = _dealt([tuple(runs) for runs in alike.values()], costs, workers)
    single = _dealt([(run,) for run in costs], costs, workers)
    dealt = together if _longest(together, costs) <= 1.05 * _longest(single, costs) else single
    order = {run: place for place, run in enumerate(costs)}
    ordered = [tuple(sorted(share, key=order.__getitem__)) for share in dealt if share]
    return tuple(sorted(ordered, key=lambda share: order[share[0]]))


def workers_that_fit(most: int, backbone: int, beside: int, available: int | None) -> int:
    """How many workers the memory holds, this one included; beside: what all runs need beside the model, in bytes."""
    if available is None:
        return most
    further = (available - beside) // (backbone + WORKER_BYTES)
    return max(1, min(most, 1 + further))


def fewer_cores(plan: Plan, cores: int) -> str | None:
    """A sentence where a recorded plan needs more than this machine has; it is kept all the same."""
    needed = plan.workers * plan.threads
    if needed <= cores:
        return None
    had = f"{cores} core{'s' if cores != 1 else ''}"
    return f"The plan of this comparison needs {needed} cores and {had} can be used here, so it goes on slower."


def _dealt(units: Sequence[tuple[str, ...]], costs: Mapping[str, float], workers: int) -> list[list[str]]:
    """The dearest first, each to the worker that has least to do."""
    dealt: list[list[str]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for unit in sorted(units, key=lambda unit: -sum(costs[run] for run in unit)):
        least = loads.index(min(loads))
        dealt[least] += unit
        loads[least] += sum(costs[run] for run in unit)
    return dealt


def _longest(dealt: Sequence[Sequence[str]], costs: Mapping[str, float]) -> float:
    return max(sum(costs[run] for run in share) for share in dealt)


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
