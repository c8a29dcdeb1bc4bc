"""Runs that begin with what a finished run has learned: its adapter, and its head where the answers are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_core.methods import Attached
from peft_core.records import START, InputError, MethodSpec, RunSpec
from peft_core.training.data import TaskData
from peft_core.training.native import TASKS, TaskFacts, read_tensors

STARTS, MODEL = "starts", "model.json"
"""Folder of a comparison with a copy of every adapter that its runs begin with, and which weights each belongs to."""


@dataclass(frozen=True)
class Starts:
    """What a comparison's runs may begin with. folder: the comparison's own; model: its weights, as recorded."""

    folder: Path
    model: Mapping[str, Any]

    def load(self, spec: RunSpec, attached: Attached, data: Sequence[TaskData]) -> str | None:
        """Puts what the run's method begins with into an attachment whose heads are there.

        Returns:
            What it began with, for the record; None where it begins with nothing learned.

        Raises:
            InputError: the values are gone or damaged, of other weights, or training cannot go on from them.
        """
        run = spec.method.start
        if run is None:
            return None
        check_one_way(spec.method, attached)
        folder = self.folder / STARTS / run
        self._check_weights(spec, folder)
        adapter, head = read_tensors(folder)
        heads = _same_answers(folder, data)
        attached.load_stored(adapter, head if heads else attached.stored_head())
        return f"{run}, head included" if heads else f"{run}, with a new head"

    def _check_weights(self, spec: RunSpec, folder: Path) -> None:
        try:
            recorded = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            recorded = None
        if not isinstance(recorded, dict):
            raise InputError(
                f"{spec.method.id}.{START}", spec.method.start, "what it left is not on this disk any more"
            )
        for name in ("commit", "weights_sha256"):
            before, now = recorded.get(name), self.model.get(name)
            if before is not None and now is not None and before != now:
                allowed = f"it must be of the weights that {spec.method.start} was trained on"
                raise InputError("model", spec.comparison.model, allowed)


def check_one_way(method: MethodSpec, attached: Attached) -> None:
    """Refuses a method from whose stored values training cannot go on: InputError."""
    if method.start is not None and attached.one_way is not None:
        raise InputError(f"{method.id}.{START}", method.start, attached.one_way)


def _same_answers(folder: Path, data: Sequence[TaskData]) -> bool:
    """Whether the stored heads answer what the tasks ask. Labels that nobody noted are taken to be the tasks' own."""
    try:
        noted = json.loads((folder / TASKS).read_text(encoding="utf-8"))
        before = [TaskFacts.model_validate(entry) for entry in noted]
    except (OSError, ValueError, TypeError):
        return False
    now = [TaskFacts.of(task.info) for task in data]
    return len(before) == len(now) and all(
        (old.problem, old.outputs) == (new.problem, new.outputs) and old.labels in (None, new.labels)
        for old, new in zip(before, now, strict=True)
    )
