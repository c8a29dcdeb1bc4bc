"""The real engine: a killed worker's comparison resumes bit for bit."""

from __future__ import annotations

import os
import signal

import pytest

from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig, View
from peft_core.runs import Limits, Supervisor
from tests.runs.support import states, until

pytestmark = pytest.mark.reliability
SPEC = ComparisonSpec(
    model="tiny-text",
    task="acceptability",
    methods=(MethodSpec.parse("lora:rank=4"), MethodSpec.parse("capaboost_lora:rank=4,d=2,sparsity=0.5")),
    seeds=(0,),
    train_rows=400,
    eval_rows=100,
    training=TrainingConfig(steps=50, batch_size=8, eval_every=10),
)


def curve(view: View) -> dict[tuple[str, str, int], object]:
    """Everything that was measured, but for times."""
    told = {}
    for event in view.events:
        if event["event"] != "state":
            number = event["run"].rpartition("-")[2]
            timeless = {key: value for key, value in event.items() if key not in ("run", "seq", "seconds")}
            assert told.setdefault((number, event["event"], event["step"]), timeless) is timeless
    return told


def test_a_run_that_was_stopped_and_killed_follows_the_same_curve_bit_for_bit(tmp_path):
    with Supervisor(tmp_path, limits=Limits(spare=0.0)) as supervisor:
        whole, broken = supervisor.submit(SPEC), supervisor.submit(SPEC)
        assert supervisor.wait(whole, 60)

        until(lambda: all(run.step >= 12 for run in supervisor.view(broken).runs), 60)
        supervisor.cancel(broken)  # which leaves a checkpoint
        assert supervisor.wait(broken, 10)
        stopped = supervisor.view(broken)
        for run in stopped.runs:
            assert list((supervisor.folder(run.run) / "checkpoints").glob("*.safetensors"))

        supervisor.resume(broken)
        until(lambda: all(run.step >= 25 for run in supervisor.view(broken).runs), 60)
        for process in supervisor.processes():
            os.kill(process, signal.SIGKILL)
        assert supervisor.wait(broken, 5)
        assert RunState.INTERRUPTED in states(supervisor.view(broken))

        supervisor.resume(broken)
        assert supervisor.wait(broken, 60)
        assert states(supervisor.view(broken)) == states(supervisor.view(whole)) == [RunState.FINISHED] * 2
        assert curve(supervisor.view(broken)) == curve(supervisor.view(whole))
        assert supervisor.view(broken).events[: len(stopped.events)] == stopped.events
