"""A cluster whose head is started anew."""

from __future__ import annotations

import pytest

from peft_core.records import RunState
from peft_core.runs.ray import RayExecutor
from peft_core.runs.ray_options import RayOptions
from tests.runs.ray_cluster import Nodes, needs_ray
from tests.runs.ray_trainer import TRAINER
from tests.runs.support import (
    comparison,
    states,
    steps_of,
    supervise,
    until,
)

pytestmark = [needs_ray, pytest.mark.reliability]


def test_a_run_goes_on_where_the_head_was_restarted(patient, tmp_path, monkeypatch):
    alone = Nodes(1)
    for name, value in alone.environment.items():
        monkeypatch.setenv(name, value)
    executor = RayExecutor(tmp_path, TRAINER, RayOptions(address=alone.address, storage=f"file://{tmp_path}/storage"))
    try:
        with supervise(tmp_path / "home", executor) as supervisor:
            comparison_id = supervisor.submit(comparison(methods=1, steps=30, step_seconds=0.05))
            until(lambda: supervisor.view(comparison_id).runs[0].step >= 12, 30)
            alone.tell("restart")
            assert alone.count() == 1
            assert supervisor.wait(comparison_id, 15)
            view = supervisor.view(comparison_id)
    finally:
        alone.close()
    assert states(view) == [RunState.FINISHED], view.runs[0].error
    assert steps_of(view, 0) == list(range(1, 31))
    assert "goes on from its last checkpoints (1 of 3 times)" in view.comparison.message
