"""One small comparison, trained once, whose runs the tests export."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig

METHODS = ("lora:rank=8", "capaboost_lora:rank=8", "full", "adapter_pfeiffer:bottleneck=4")


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """`home`: its store's folder. `runs`: run by method and seed."""
    from peft_core.runs import Supervisor

    home = tmp_path_factory.mktemp("export") / "home"
    spec = ComparisonSpec(
        model="tiny-text",
        task="acceptability",
        methods=tuple(map(MethodSpec.parse, METHODS)),
        seeds=(0, 1),
        train_rows=64,
        eval_rows=32,
        training=TrainingConfig(steps=4, eval_every=2),
    )
    with Supervisor(home, executor="thread") as supervisor:
        name = supervisor.submit(spec)
        supervisor.wait(name)
        rows = supervisor.view(name).runs
    assert all(row.state == RunState.FINISHED for row in rows), [row.error for row in rows]
    return SimpleNamespace(id=name, home=home, runs={(row.label, row.seed): row.run for row in rows})


@pytest.fixture
def store(comparison, tmp_path, monkeypatch):
    """A copy of it as the store of this test."""
    shutil.copytree(comparison.home, tmp_path / "store")
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "store"))
    return SimpleNamespace(id=comparison.id, runs=comparison.runs, home=tmp_path / "store")
