"""A finished run as exports see it: its rows in the store, its adapter's folder, and what a card says of both."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peft_core.export.recipe import ModelFacts, Recipe
from peft_core.records import InputError, RunResult, RunRow, RunState, View
from peft_core.training.data import chosen_tasks
from peft_core.training.native import TASKS, TaskFacts


@dataclass(frozen=True)
class FinishedRun:
    """A run of a comparison that has finished.

    view: the comparison with its runs and events. folder: of the run's adapter.
    """

    view: View
    row: RunRow
    result: RunResult
    folder: Path

    @classmethod
    def of(cls, view: View, run: str, folder: Path) -> FinishedRun:
        """The run of this id.

        Raises:
            InputError: there is none, it has not finished, or its adapter is gone.
        """
        row = next((row for row in view.runs if row.run == run), None)
        if row is None:
            raise InputError("id", run, f"it must be a run: {', '.join(row.run for row in view.runs)}")
        if row.state != RunState.FINISHED or row.result is None:
            raise InputError("id", run, f"the run is {row.state.value}; only a finished one can be used")
        if not folder.is_dir():
            raise InputError("id", run, "its adapter is not on this disk any more")
        return cls(view, row, row.result, folder)

    @property
    def metric(self) -> str:
        """The score that counts."""
        return self.view.comparison.metric or next(iter(self.result.score))

    @property
    def imported(self) -> str | None:
        """Name of the folder that it was imported from; None for a run that was trained here."""
        name = self.view.comparison.environment.get("imported")
        return str(name) if name else None

    def recipe(self) -> Recipe:
        """What makes the run's adapter again."""
        comparison = self.view.comparison
        recorded = comparison.environment.get("model") or {"origin": "unknown", "id": comparison.spec.model}
        return Recipe(
            model=ModelFacts.model_validate({key: recorded.get(key) for key in ModelFacts.model_fields}),
            method=self.row.method.id,
            config=self.row.config,
            seed=self.row.seed,
            tasks=self._tasks(),
        )

    def _tasks(self) -> tuple[TaskFacts, ...]:
        """As noted beside the adapter; of a run from before that was noted, as its tasks say now."""
        try:
            noted = json.loads((self.folder / TASKS).read_text(encoding="utf-8"))
            return tuple(TaskFacts.model_validate(entry) for entry in noted)
        except FileNotFoundError:
            return tuple(TaskFacts.of(task.info) for task, _ in chosen_tasks(self.view.comparison.spec))
        except (OSError, ValueError, TypeError, ValidationError):
            raise InputError("id", self.row.run, f"the file {TASKS} beside its adapter is damaged") from None

    def curve(self) -> list[tuple[int, float]]:
        """(step, score) of its evaluations."""
        found = (event for event in self.view.events if event["event"] == "eval" and event["run"] == self.row.run)
        scores = ((event["step"], event["scores"].get(self.metric)) for event in found)
        return [(step, score) for step, score in scores if score is not None]

    def scores(self) -> list[Spread]:
        """By metric this run's score, and how the finished runs of its method spread over the comparison's seeds."""
        same = [row.result.score for row in self.view.runs if row.label == self.row.label and row.result is not None]
        return [Spread.of(name, value, [score.get(name) for score in same]) for name, value in self._ordered().items()]

    def _ordered(self) -> Mapping[str, float | None]:
        first = {self.metric: self.result.score.get(self.metric)}
        return first | self.result.score

    def environment(self) -> dict[str, Any]:
        """Versions, device and code, without what cards say elsewhere."""
        found = dict(self.view.comparison.environment)
        return {name: value for name, value in found.items() if name not in ("model", "data")}


@dataclass(frozen=True)
class Spread:
    """A score of a run, and its mean and deviation (n - 1) over n seeds; no deviation for one seed."""

    metric: str
    score: float | None
    n: int
    mean: float | None
    std: float | None

    @classmethod
    def of(cls, metric: str, score: float | None, values: list[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        return cls(
            metric,
            score,
            len(known),
            statistics.fmean(known) if known else None,
            statistics.stdev(known) if len(known) > 1 else None,
        )
