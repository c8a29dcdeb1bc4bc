"""What the tests of runs and of their reliability share."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil

from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig, View
from peft_core.runs import Limits, Supervisor
from peft_core.runs.executors import Executor
from tests.runs.stand_in import TRAINER

PATIENCE = 1.0
"""By how much longer things may take than on an idle machine with processes."""
QUICK = Limits(beat=2.5, stall=30.0, stop=2.0, spare=0.0)


def comparison(*, methods: int = 2, seeds: int = 1, steps: int = 30, **options: object) -> ComparisonSpec:
    """A specification for the stand-in trainer; options: its faults."""
    return ComparisonSpec(
        model="stand-in",
        task="stand-in",
        task_options=options,
        methods=tuple(MethodSpec(id="lora", options={"rank": rank + 1}) for rank in range(methods)),
        seeds=tuple(range(seeds)),
        training=TrainingConfig(steps=steps),
    )


class Patient(Supervisor):
    """One that waits longer than it is asked to where its workers are on a cluster."""

    def wait(self, given: str, timeout: float | None = None) -> bool:
        return super().wait(given, None if timeout is None else timeout * PATIENCE)


def supervise(home: Path, executor: str | Executor = "process", **settings: object) -> Supervisor:
    limits = Limits(**{**vars(QUICK), "beat": QUICK.beat * PATIENCE})
    return Patient(home, executor=executor, **{"trainer": TRAINER, "limits": limits, **settings})


def until(condition, timeout: float = 5.0) -> float:
    """Wait until the condition holds; return the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout * PATIENCE, "it took too long"
        time.sleep(0.01)
    return time.monotonic() - started


def states(view: View) -> list[RunState]:
    return [run.state for run in view.runs]


def steps_of(view: View, number: int) -> list[int]:
    run = view.runs[number].run
    return [event["step"] for event in view.events if event["run"] == run and event["event"] == "step"]


def times_in_state(view: View, number: int) -> Counter[str]:
    """How often a run came into each state."""
    run = view.runs[number].run
    return Counter(event["state"] for event in view.events if event["run"] == run and event["event"] == "state")


def reached(supervisor: Supervisor, comparison_id: str, step: int, timeout: float = 15.0) -> None:
    """Wait until every run has made a number of steps."""
    until(lambda: all(run.step >= step or run.state.ended for run in supervisor.view(comparison_id).runs), timeout)


def pid_of_worker(supervisor: Supervisor, comparison_id: str, number: int = 0) -> int:
    """The process that trains, or has trained, a comparison's run of this number."""
    file = supervisor.folder(supervisor.view(comparison_id).runs[number].run) / "process"
    return int(file.read_text().split()[0])


def worker_of(supervisor: Supervisor, comparison_id: str, number: int = 0) -> psutil.Process:
    """The process that trains a comparison's run of this number."""
    return psutil.Process(pid_of_worker(supervisor, comparison_id, number))
