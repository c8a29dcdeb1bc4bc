"""The file of a sweep: every finished trial is in it before the next is counted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft_core.records import InputError, Trial
from peft_core.runs.job import strict

WRITING_PAYS = 20.0
"""Times as long as writing the file took that pass until it is written again: most of the time is not spent on it."""


class Ledger:
    """The trials of a sweep in its file, which is whole at any moment.

    Args:
        keys: of the cells, in the grid's order.
        document: what the file holds beside the trials, computed anew from those of the grid with every write.

    Raises:
        InputError: the file holds something else.
    """

    def __init__(self, file: Path, keys: Sequence[str], document: Callable[[Sequence[Trial]], dict[str, Any]]) -> None:
        self._file, self._document = file, document
        self._order = {key: place for place, key in enumerate(keys)}
        self.environments: list[dict[str, Any]] = []
        self._trials: dict[str, Trial] = {}
        self._beside = file.with_name(f"{file.name}.trials")
        self._written, self._took = 0.0, 0.0
        if file.exists():
            self._read()
        if self._beside.exists():
            self._read_beside()

    def _read(self) -> None:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            trials = [Trial.model_validate(trial) for trial in (*found["trials"], *found["set_aside"])]
            self.environments = list(found["environments"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError("out", str(self._file), "it must be a new file, or one that a sweep has written") from None
        self._trials = {trial.key: trial for trial in trials}

    def _read_beside(self) -> None:
        """Takes in the trials that were finished after the file was written last; a line that was cut off is left."""
        for line in self._beside.read_text(encoding="utf-8").splitlines():
            try:
                found = json.loads(line)
                trial = Trial.model_validate(found["trial"])
            except (ValueError, KeyError):
                continue
            environment = self.environment(found["environment"])
            self._trials[trial.key] = trial.model_copy(update={"environment": environment})

    @property
    def trials(self) -> list[Trial]:
        """Those of the grid, in its order."""
        found = [trial for key, trial in self._trials.items() if key in self._order]
        return sorted(found, key=lambda trial: self._order[trial.key])

    def forget_failed(self) -> None:
        """Lets what failed be tried again."""
        self._trials = {key: trial for key, trial in self._trials.items() if trial.error is None}

    def add(self, trial: Trial) -> None:
        """Keeps a trial: in the file or, where writing that again so soon takes too long, on a line beside it."""
        self._trials[trial.key] = trial
        if time.monotonic() - self._written >= WRITING_PAYS * self._took:
            self.write()
            return
        line = {"trial": trial.model_dump(mode="json"), "environment": self.environments[trial.environment]}
        with self._beside.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line, allow_nan=False) + "\n")
            opened.flush()
            os.fsync(opened.fileno())

    def environment(self, described: dict[str, Any]) -> int:
        """The index of an environment, which is added where it is new."""
        if described not in self.environments:
            self.environments.append(described)
        return self.environments.index(described)

    def document(self) -> dict[str, Any]:
        """All that the file holds, as strict JSON has it."""
        aside = [trial for key, trial in self._trials.items() if key not in self._order]
        trials = self.trials
        return {
            **strict(self._document(trials)),
            "environments": self.environments,
            "trials": [trial.model_dump(mode="json") for trial in trials],
            "set_aside": [trial.model_dump(mode="json") for trial in aside],
        }

    def write(self) -> None:
        """Replaces the file as a whole; it then holds what was beside it."""
        started = time.monotonic()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(f"{self._file.name}.new")
        with beside.open("w", encoding="utf-8") as opened:
            json.dump(self.document(), opened, indent=1, allow_nan=False)
            opened.write("\n")
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(self._file)
        self._beside.unlink(missing_ok=True)
        self._written = time.monotonic()
        self._took = self._written - started
