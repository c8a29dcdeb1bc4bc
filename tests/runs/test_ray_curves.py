"""The same figures on a cluster as on one machine."""

from __future__ import annotations

import json

import pytest

from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig
from peft_core.runs import Supervisor
from peft_core.runs.process import ProcessExecutor
from peft_core.runs.ray import RayExecutor
from peft_core.runs.ray_options import RayOptions
from tests.runs.ray_cluster import needs_ray
from tests.runs.support import (
    states,
)

pytestmark = [needs_ray, pytest.mark.reliability]


def figures(supervisor, comparison_id):
    """All figures of a comparison: (run, kind, step) and what is not a time."""
    assert supervisor.wait(comparison_id, 150)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * len(view.runs), [run.error for run in view.runs]
    numbers = {run.run: number for number, run in enumerate(view.runs)}
    left_out = {"seconds", "seq", "run", "result", "data_wait_seconds"}
    found = [
        (numbers[event["run"]], {name: value for name, value in event.items() if name not in left_out})
        for event in view.events
        if event["event"] != "state"
    ]
    return sorted(found, key=lambda pair: (pair[0], pair[1]["step"], pair[1]["event"]))


def test_the_same_comparison_has_the_same_curves_on_both_executors(nodes, tmp_path):
    spec = ComparisonSpec(
        model="tiny-text",
        task="acceptability",
        methods=(MethodSpec.parse("lora:rank=2"),),
        seeds=(0, 1),
        train_rows=64,
        eval_rows=32,
        plan="apart",
        training=TrainingConfig(steps=4, batch_size=8, eval_every=2),
    )
    process = ProcessExecutor(tmp_path, threads=1, workers=1)
    ray = RayExecutor(tmp_path, options=RayOptions(address=nodes.address))
    with Supervisor(tmp_path / "one", executor=process) as one, Supervisor(tmp_path / "two", executor=ray) as two:
        begun = [(supervisor, supervisor.submit(spec)) for supervisor in (one, two)]
        before, after = (figures(*pair) for pair in begun)
    assert json.dumps(before) == json.dumps(after) and len(before) > 10
