"""The real engine: a killed worker's comparison resumes bit for bit."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig
from peft_core.runs import Limits, Supervisor
from peft_core.runs.process import ProcessExecutor
from tests.reliability.support import curve
from tests.runs.support import reached, states

pytestmark = pytest.mark.reliability
SPEC = ComparisonSpec(
    model="tiny-text",
    task="acceptability",
    methods=(MethodSpec.parse("lora:rank=4"), MethodSpec.parse("capaboost_lora:rank=4,d=2,sparsity=0.5")),
    seeds=(0,),
    train_rows=400,
    eval_rows=100,
    training=TrainingConfig(steps=40, batch_size=8, eval_every=10),
)


@pytest.fixture(autouse=True)
def one_thread():
    """Curves are equal for an equal number of threads; workers are given one, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_that_was_stopped_and_killed_follows_the_same_curve_bit_for_bit(tmp_path):
    with Supervisor(tmp_path, executor="thread") as supervisor:
        whole, broken = supervisor.submit(SPEC), supervisor.submit(SPEC)
        assert supervisor.wait(whole, 60)
        reached(supervisor, broken, 8)
        supervisor.cancel(broken)  # which leaves a checkpoint
        assert supervisor.wait(broken, 10)
        stopped = supervisor.view(broken)
        for run in stopped.runs:
            assert list((supervisor.folder(run.run) / "checkpoints").glob("*.safetensors"))

    with Supervisor(tmp_path, executor=ProcessExecutor(tmp_path, threads=1), limits=Limits(spare=3600)) as supervisor:
        supervisor.resume(broken)
        reached(supervisor, broken, 18, timeout=60)
        os.kill(supervisor.processes()[0], signal.SIGKILL)
        assert supervisor.wait(broken, 5)
        assert RunState.INTERRUPTED in states(supervisor.view(broken))

        supervisor.resume(broken)
        assert supervisor.wait(broken, 60)
        assert states(supervisor.view(broken)) == states(supervisor.view(whole)) == [RunState.FINISHED] * 2
        assert curve(supervisor.view(broken)) == curve(supervisor.view(whole))
        assert supervisor.view(broken).events[: len(stopped.events)] == stopped.events


def test_two_workers_one_of_which_was_killed_follow_the_curves_of_one_bit_for_bit(tmp_path):
    training = SPEC.training.model_copy(update={"steps": 80, "eval_every": 40})
    spec = SPEC.model_copy(update={"plan": "workers", "eval_rows": 20, "training": training})
    executor = ProcessExecutor(tmp_path, threads=2)
    with Supervisor(tmp_path, executor=executor, limits=Limits(spare=3600)) as supervisor:
        broken = supervisor.submit(spec)
        reached(supervisor, broken, 4, timeout=60)
        plan = supervisor.view(broken).comparison.plan
        assert (plan["workers"], plan["threads"], len(plan["shares"])) == (2, 1, 2)
        os.kill(supervisor.processes()[0], signal.SIGKILL)
        assert supervisor.wait(broken, 60)
        supervisor.resume(broken)
        assert supervisor.wait(broken, 60)
        views = [supervisor.view(broken)]
    with Supervisor(tmp_path, executor="thread") as supervisor:
        whole = supervisor.submit(spec.model_copy(update={"plan": "apart"}))
        assert supervisor.wait(whole, 60)
        views.append(supervisor.view(whole))
    assert [states(view) for view in views] == [[RunState.FINISHED] * 2] * 2
    assert curve(views[0]) == curve(views[1]) and views[0].comparison.plan == plan
