"""Events that are numbered by run, and which of a run's checkpoints fits what the store has of them.

A checkpoint on another machine may be ahead of the store: the events before it were on their way when the machine was
lost. So a checkpoint is noted with the number of events before it, and a run goes on only from one whose events are all
stored. What it then reports again has numbers that are known, and is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peft_core.records import Event, RunState

if TYPE_CHECKING:
    from peft_core.runs.job import Job, Report, Send

CHECKPOINTS, NOTES = "checkpoints", "events.json"
"""Folder of a run, and the file in it: the number of the run's events before each checkpoint, by its step."""


class Numbering:
    """Numbers the events of a job's runs in the process that trains. Called from the thread that trains.

    A checkpoint that has appeared since a run's last event was written after that event and before the next one.
    """

    def __init__(self, job: Job, send: Send) -> None:
        self._folder, self._stored, self._send = job.folder, job.events, send
        self._made: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def emit(self, event: Event, encoded: Report | None) -> None:
        """Sends an event with its number, and before it a note of the checkpoint that was written since the last.

        encoded: what is sent of it; None: it is not reported, and so not counted.
        """
        run = event.run
        if event.event == "state":
            if event.state is RunState.RUNNING:
                self._begin(run, event.step)
            self._note(run)
            self._send({"event": encoded})
            return
        self._note(run)
        if encoded is not None:
            self._made[run] = self._made.get(run, 0) + 1
            self._send({"event": encoded, "n": self._made[run]})

    def _begin(self, run: str, step: int) -> None:
        before = read_notes(self._folder / run).get(step, self._stored.get(run, 0)) if step else 0
        self._made[run] = before
        self._seen[run] = _changed(self._folder / run)

    def _note(self, run: str) -> None:
        changed = _changed(self._folder / run)
        if run not in self._made or changed == self._seen.get(run):
            return
        notes = read_notes(self._folder / run)
        steps = steps_of(self._folder / run)
        if new := steps - notes.keys():
            notes |= dict.fromkeys(new, self._made[run])
            write_notes(self._folder / run, {step: count for step, count in notes.items() if step in steps})
            self._send({"saved": {"run": run, "step": max(new)}})
        self._seen[run] = _changed(self._folder / run)


def checkpoint_name(step: int) -> str:
    return f"step-{step:09d}.safetensors"


def steps_of(folder: Path) -> set[int]:
    """The steps of which a run has checkpoints. folder: the run's."""
    files = (folder / CHECKPOINTS).glob("step-*.safetensors")
    return {int(file.stem.removeprefix("step-")) for file in files}


def read_notes(folder: Path) -> dict[int, int]:
    """The number of events before each checkpoint, by its step; empty where nothing was noted."""
    try:
        return parse_notes((folder / CHECKPOINTS / NOTES).read_text(encoding="utf-8"))
    except OSError:
        return {}


def parse_notes(text: str) -> dict[int, int]:
    try:
        return {int(step): int(count) for step, count in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def write_notes(folder: Path, notes: Mapping[int, int]) -> None:
    """Replaces the file as a whole."""
    file = folder / CHECKPOINTS / NOTES
    beside = file.with_name(f".{NOTES}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(notes), encoding="utf-8")
    beside.replace(file)


def fitting(notes: Mapping[int, int], stored: int) -> list[int]:
    """The steps of the checkpoints whose events are all stored, the newest first."""
    return sorted((step for step, count in notes.items() if count <= stored), reverse=True)


def keep_fitting(folder: Path, stored: int) -> None:
    """Removes from a run's folder the checkpoints that are ahead of the store. Without notes all of them stay."""
    if not (folder / CHECKPOINTS / NOTES).exists():
        return
    good = fitting(read_notes(folder), stored)
    for step in steps_of(folder) - set(good):
        (folder / CHECKPOINTS / checkpoint_name(step)).unlink(missing_ok=True)


def without_notes(folder: Path, stored: int) -> None:
    """Goes over to events without numbers: what is ahead of the store goes, and so do the notes."""
    keep_fitting(folder, stored)
    (folder / CHECKPOINTS / NOTES).unlink(missing_ok=True)


def _changed(folder: Path) -> int:
    """When the list of a run's checkpoints changed last; 0 where it has none."""
    try:
        return (folder / CHECKPOINTS).stat().st_mtime_ns
    except OSError:
        return 0
