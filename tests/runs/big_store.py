"""A store of many runs for tests, and comparisons in it that have curves."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from peft_core.commands import _made_up_store
from peft_core.commands._made_up_store import TASKS
from peft_core.records import MethodSpec, RunState, StateRecord, run_specs
from peft_core.runs import Store
from tests.report.sample import METRIC, sample_result, sample_spec, step_events

__all__ = ["METHODS", "TASKS", "add_with_curves", "fill"]
METHODS = ("lora:rank=4", "lora:rank=8", "capaboost_lora:rank=4,d=2,sparsity=0.5", "bitfit")


def fill(path: Path, comparisons: int = 1250, seeds: int = 2) -> int:
    """Adds comparisons of four methods; returns how many runs that are. The ids are caaaaaaa-0 and so on."""
    return _made_up_store.fill(path, [MethodSpec.parse(text) for text in METHODS], comparisons, seeds)


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
