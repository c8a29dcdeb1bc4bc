"""What a sweep chose, from its trials alone: for every method on every task, and for every method over all tasks.

On a task the setting with the highest mean validation score over the seeds wins. Over all tasks it is the one with the
highest mean, over the tasks where the method has a place, of the normalised score (s - b) / (1 - b): s is the mean
validation score on the task, b what a model that ignores its input reaches there (0 where there is no such figure).
1 stands for a perfect answer, and no other method's trials come into it. A setting with a trial that failed or whose
score is not defined counts as tried and cannot win, on that task nor over all. Of equal ones the smaller rate wins.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peft_core.records import Absence, MethodSpec, SweepMethod, SweepSpec, Trial

Row = dict[str, Any]
Scores = dict[str, float]
"""Mean score by the setting as text, of the settings that can win."""


def choices(spec: SweepSpec, trials: Sequence[Trial], absences: Sequence[Absence]) -> dict[str, list[Row]]:
    """The keys `choices` and `overall` of a sweep's JSON; trials of other sweeps are left out by the caller.

    A method's row has `learning_rate` None where no setting can win (`said` tells why), and where trials are still to
    come. `trials`: settings tried; `runs`: trained trials, seeds counted; `edge`: whether the chosen rate is the
    `lowest` or `highest` that was tried, or the `only` one.
    """
    tasks = {(spec.model_of(task), task.task): task for task in spec.tasks}
    absent = {(absence.model, absence.task, absence.method) for absence in absences}
    rows, overall = [], []
    for entry in spec.methods:
        places = [place for place in tasks if (*place, str(entry.method)) not in absent]
        own = {place: _of(trials, *place, str(entry.method)) for place in places}
        rows += [{"model": place[0], "task": place[1], **_choice(spec, entry, own[place])} for place in places]
        if places:
            overall.append(_over_all(spec, entry, own))
    return {"choices": rows, "overall": overall}


def _of(trials: Sequence[Trial], model: str, task: str, method: str) -> list[Trial]:
    return [trial for trial in trials if (trial.model, trial.task, trial.method) == (model, task, method)]


def _choice(spec: SweepSpec, entry: SweepMethod, trials: Sequence[Trial]) -> Row:
    means = mean_scores(trials)
    row = _row(spec, entry, means, trials, places=1)
    won = [trial.score for trial in trials if trial.setting == row["setting"] and trial.score is not None]
    return _plain(row) | {
        "metric": trials[0].metric if trials else None,
        "score": means[str(row["setting"])] if won else None,
        "std": statistics.stdev(won) if len(won) > 1 else None,
        "seeds": len(won),
    }


def _over_all(spec: SweepSpec, entry: SweepMethod, own: Mapping[tuple[str, str], Sequence[Trial]]) -> Row:
    by_task = [_normalised(trials) for trials in own.values()]
    shared = set(by_task[0]).intersection(*by_task[1:])
    means = {setting: statistics.fmean(scores[setting] for scores in by_task) for setting in shared}
    row = _row(spec, entry, means, [trial for trials in own.values() for trial in trials], places=len(own))
    return _plain(row) | {
        "tasks": [f"{task} on {model}" for model, task in own],
        "normalised_score": means[str(row["setting"])] if row["setting"] is not None else None,
    }


def mean_scores(trials: Sequence[Trial]) -> Scores:
    """Mean validation score over the seeds, of every setting all of whose trials have one."""
    scores: dict[str, list[float | None]] = {}
    for trial in trials:
        scores.setdefault(str(trial.setting), []).append(trial.score)
    return {
        setting: statistics.fmean(value for value in values if value is not None)
        for setting, values in scores.items()
        if all(value is not None and math.isfinite(value) for value in values)
    }


def _normalised(trials: Sequence[Trial]) -> Scores:
    base = next((trial.baseline_score for trial in trials if trial.baseline_score is not None), 0.0)
    room = 1 - base
    return {name: (mean - base) / room if room > 0 else 0.0 for name, mean in mean_scores(trials).items()}


def _row(spec: SweepSpec, entry: SweepMethod, means: Scores, trials: Sequence[Trial], places: int) -> Row:
    """What both kinds of choices say; `setting` is None where there is none."""
    settings, rates = spec.settings(entry), spec.rates(entry)
    pending = len(settings) * len(spec.seeds) * places - len(trials)
    able = [setting for setting in settings if str(setting) in means]
    best = max(able, key=lambda setting: (means[str(setting)], -_rate(setting)), default=None) if not pending else None
    rate = _rate(best) if best is not None else None
    return {
        "method": str(entry.method),
        "setting": best,
        "options": {name: best.options[name] for name in entry.options} if best is not None else {},
        "learning_rate": rate,
        "trials": len(settings),
        "runs": len(trials),
        "failed": sum(trial.score is None for trial in trials),
        "edge": _edge(rate, rates) if rate is not None else None,
        "said": _said(rate, rates, pending),
    }


def _plain(row: Row) -> Row:
    return {name: str(value) if name == "setting" and value is not None else value for name, value in row.items()}


def _rate(setting: MethodSpec) -> float:
    rate = setting.options["learning_rate"]
    assert isinstance(rate, float)
    return rate


def _edge(rate: float, rates: Sequence[float]) -> str | None:
    if len(rates) == 1:
        return "only"
    return {rates[0]: "lowest", rates[-1]: "highest"}.get(rate)


def _said(rate: float | None, rates: Sequence[float], pending: int) -> str:
    if pending:
        return f"{pending} trials are still to come"
    if rate is None:
        return "in every setting a trial failed or has no score"
    edge = _edge(rate, rates)
    if edge == "only":
        return "one learning rate was tried"
    if edge is not None:
        return f"the {edge} of {len(rates)} learning rates won: one beyond it may be better"
    return ""
