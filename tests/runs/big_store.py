"""A store of many runs that nobody trained, made quickly: for what has to stay fast however much was run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from peft_core.records import RunState, StateRecord, run_specs
from peft_core.report.wire import short
from peft_core.runs import Store
from tests.report.sample import METRIC, sample_result, sample_spec, step_events

METHODS = ("lora:rank=4", "lora:rank=8", "capaboost_lora:rank=4,d=2,sparsity=0.5", "bitfit")
STATES = (RunState.FINISHED, RunState.FINISHED, RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)
TASKS = ("acceptability", "sentiment", "entailment", "similarity")
RESAMPLES = 1000


def fill(path: Path, comparisons: int = 1250, seeds: int = 2) -> int:
    """Adds comparisons of four methods; returns how many runs that are. The ids are c0000000-0 and so on."""
    Store(path).close()
    spec = sample_spec(methods=METHODS, seeds=tuple(range(seeds)))
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(comparisons):
            _add(connection, number, spec.model_copy(update={"task": TASKS[number % len(TASKS)]}))
    return comparisons * len(METHODS) * seeds


def add_with_curves(path: Path, task: str, metric: str, steps: int = 60) -> str:
    """Adds a finished comparison of two methods and one seed with all that its runs reported; its id."""
    spec = sample_spec(steps=steps, seeds=(0,)).model_copy(update={"task": task})
    with closing(Store(path)) as store:
        made = store.add(spec, "nobody")
        store.apply(made, [{"notice": {"metric": metric, "baseline_score": 0.0}}])
        for run in run_specs(made, spec):
            events = [event for step in range(1, steps + 1) for event in step_events(run.run, run.label, 0, step, 20)]
            for event in events:
                if event["event"] == "eval":
                    event["scores"] = {metric: event["scores"][METRIC]}
            result = sample_result(run.label, 0, 0.5, steps).model_copy(update={"score": {metric: 0.5}})
            states = [StateRecord(run=run.run, step=0, state=RunState.RUNNING)]
            states += [StateRecord(run=run.run, step=steps, state=RunState.FINISHED, result=result)]
            first, last = ({"event": state.model_dump(mode="json")} for state in states)
            store.apply(made, [first, *({"event": event} for event in events), last])
    return made


def _add(connection: sqlite3.Connection, number: int, spec) -> None:
    name = "c" + "".join("abcdefghij"[int(digit)] for digit in f"{number:07d}")
    connection.execute(
        "INSERT INTO comparisons (id, created, spec, owner, metric) VALUES (?, ?, ?, 'nobody', ?)",
        (name, f"2026-01-{1 + number % 28:02d}T00:00:00+00:00", spec.model_dump_json(), METRIC),
    )
    runs = [(method, seed) for method in spec.methods for seed in spec.seeds]
    for place, (method, seed) in enumerate(runs):
        state = STATES[(number + place) % len(STATES)]
        result = sample_result(str(method), seed, (number % 100) / 100, 60)
        result = result.model_copy(update={"resampled": (short(1 / 3),) * RESAMPLES})
        finished = state is RunState.FINISHED
        connection.execute(
            "INSERT INTO runs (run, comparison, number, label, method, seed, state, step, total_steps, result, score) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 60, 60, ?, ?)",
            (
                f"{name}-{place}",
                name,
                place,
                str(method),
                method.model_dump_json(),
                seed,
                state,
                result.model_dump_json() if finished else None,
                result.score[METRIC] if finished else None,
            ),
        )
