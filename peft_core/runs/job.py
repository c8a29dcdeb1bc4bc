"""One worker's work: what it is given, how the trainer is called, and what it reports.

Reports are strict JSON objects, the same over a pipe and between threads: `{"event": record}`, `{"notice": facts}`,
`{"error": sentence}` where training as a whole failed, and from a process `{"beat": true}` every second. Notices carry
facts as keys of `ComparisonRow`, those of one run with `run`, and `active`: the run that training turns to, or the
list of those that advance together.

A trainer is a function written `package.module:function` with the signature of `peft_core.training.train_comparison`.
Its module may define `check(spec)`, which refuses what cannot run, and `warm()`, which imports ahead what it needs.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from peft_core.records import ComparisonSpec, Event, Frozen, InputError, Offer, Plan, RunFailure, RunSpec, run_specs
from peft_core.runs.numbering import Numbering, without_notes

log = logging.getLogger(__name__)
DEFAULT_TRAINER = "peft_core.training:train_comparison"
DISK_FULL = "disk full; delete runs that are not needed any more, then resume"
OUT_OF_MEMORY = "out of memory; use a smaller batch size, a shorter max_length or a smaller model, then resume"

Report = dict[str, Any]
Send = Callable[[Report], None]


class Job(Frozen):
    """Runs of one comparison that a worker trains. folder: the comparison's own.

    plan: as it is recorded, and then `runs` are of the share of that number. None: the worker chooses one for all of
    the comparison, reports it, and trains the first share. offer: what it may choose from; without it and without a
    plan the worker is the only one. events: how many of a run's events are stored already; numbered: the worker numbers
    those that it reports (`numbering.py`). states_alone: of the events, changes of state alone are reported. places:
    names of the runs' files in the storage, where those are not the comparison's own; they are removed from it when
    such a run has finished or failed.
    """

    comparison: str
    spec: ComparisonSpec
    runs: tuple[str, ...]
    folder: Path
    resume: bool
    plan: Plan | None = None
    share: int = 0
    offer: Offer | None = None
    events: dict[str, int] = Field(default_factory=dict)
    numbered: bool = False
    states_alone: bool = False
    places: dict[str, str] = Field(default_factory=dict)

    def run_specs(self) -> list[RunSpec]:
        return [run for run in run_specs(self.comparison, self.spec) if run.run in self.runs]


def load_trainer(trainer: str) -> tuple[Callable[..., None], Any]:
    """The function that trains, and its module."""
    name, _, function = trainer.partition(":")
    module = importlib.import_module(name)
    return getattr(module, function), module


def warm_up(trainer: str) -> None:
    """Import everything that training needs."""
    _, module = load_trainer(trainer)
    if hasattr(module, "warm"):
        module.warm()


def check(spec: ComparisonSpec, trainer: str) -> None:
    """Raises `InputError` where the trainer knows that the comparison cannot run."""
    _, module = load_trainer(trainer)
    if hasattr(module, "check"):
        module.check(spec)


def perform(job: Job, trainer: str, send: Send, stop: Callable[[str], bool]) -> bool:
    """Train; everything goes out through `send`. False where training as a whole failed, with the reason sent."""
    numbering = Numbering(job, send)

    def emit(event: Event) -> None:
        wanted = event.event == "state" or not job.states_alone
        if job.numbered:
            numbering.emit(event, as_json(event) if wanted else None)
        elif wanted:
            send({"event": as_json(event)})

    try:
        for run in () if job.numbered else job.runs:
            without_notes(job.folder / run, job.events.get(run, 0))
        function, _ = load_trainer(trainer)
        function(
            job.spec,
            job.run_specs(),
            folder=job.folder,
            emit=emit,
            notice=lambda facts: send({"notice": strict(facts)}),
            stop=stop,
            resume=job.resume,
            **({"plan": job.plan, "share": job.share, "offer": job.offer} if job.plan or job.offer else {}),
        )
    except Exception as error:  # the outermost guard: it becomes the failed run's reason
        log.exception("training %s failed", job.comparison)
        send({"error": reason(error)})
        return False
    return True


def as_json(event: Event) -> Report:
    """A record as a strict JSON object: null where a figure is not finite."""
    encoded: Report = json.loads(event.model_dump_json())
    return encoded


def strict(value: Any) -> Any:
    """A value as strict JSON has it: null where a figure is not finite, text for what JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [strict(entry) for entry in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def reason(error: BaseException) -> str:
    """A failure in one sentence."""
    if isinstance(error, RunFailure | InputError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DISK_FULL
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
