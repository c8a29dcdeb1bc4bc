"""A real cluster of three nodes with one CPU each: what is lost, what goes on, and that the figures are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from peft_core.records import InputError, RunState, SweepSpec, checked
from peft_core.runs.ledger import Ledger
from peft_core.runs.process import ProcessExecutor
from peft_core.runs.ray import RayExecutor
from peft_core.runs.ray_options import RayOptions
from peft_core.runs.sweep import grid, work
from tests.runs.ray_cluster import Shared, needs_ray
from tests.runs.ray_trainer import SWEEP, TRAINER
from tests.runs.support import (
    comparison,
    reached,
    states,
    steps_of,
    supervise,
    times_in_state,
    until,
    worker_of,
)

pytestmark = [needs_ray, pytest.mark.reliability]


@pytest.fixture
def stored(storing: Shared, patient, tmp_path):
    """A supervisor of runs that leave their files in a storage."""
    with supervise(tmp_path, storing) as supervisor:
        yield supervisor


def test_a_run_goes_on_by_itself_and_no_event_is_doubled_or_lost(stored, storing):
    """The first run loses its worker's Ray process, the second one the connection."""
    comparison_id = stored.submit(comparison(methods=2, steps=30, step_seconds=0.03))
    until(lambda: stored.view(comparison_id).runs[0].step >= 12, 30)
    (trainer,) = trainers()
    trainer.parent().kill()
    until(lambda: stored.view(comparison_id).runs[1].step >= 12, 30)
    assert "goes on from its last checkpoints (1 of 3 times)" in stored.view(comparison_id).comparison.message
    os.kill(RayExecutor.processes(storing)[0], signal.SIGKILL)
    assert stored.wait(comparison_id, 30)
    view = stored.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * 2
    assert all(steps_of(view, number) == list(range(1, 31)) for number in range(2))
    assert all(times_in_state(view, number) == {"running": 1, "finished": 1} for number in range(2))
    assert "goes on from its last checkpoints (2 of 3 times)" in view.comparison.message
    for run in view.runs:
        began = int((stored.folder(run.run) / "process").read_text().split()[1])
        assert 0 < began < 30, "from a checkpoint, not from the start"
        assert (stored.folder(run.run) / "adapter" / "adapter.json").exists(), "it is here as if trained here"


DRIVER = """
import sys, time
from pathlib import Path
from peft_core.runs.ray import RayExecutor
from peft_core.runs.ray_options import RayOptions
from tests.runs.ray_trainer import TRAINER
from tests.runs.support import comparison, supervise
home, address, storage = sys.argv[1:]
executor = RayExecutor(Path(home), TRAINER, RayOptions(address=address, storage=storage))
with supervise(Path(home), executor) as supervisor:
    print(supervisor.submit(comparison(methods=1, steps=30, step_seconds=0.05)), flush=True)
    while True:
        print(supervisor.comparisons()[0].id, supervisor.view(supervisor.comparisons()[0].id).runs[0].step, flush=True)
        time.sleep(0.05)
"""


def test_what_a_killed_driver_left_is_resumed_from_the_storage(nodes, storing, patient, tmp_path):
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path), nodes.address, storing.options.storage]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as driver:
        comparison_id = driver.stdout.readline().strip()
        assert any(int(line.split()[1]) >= 12 for line in driver.stdout)
        driver.kill()
    with supervise(tmp_path) as supervisor, pytest.raises(InputError, match="its checkpoints are in file://"):
        supervisor.resume(comparison_id)
    with supervise(tmp_path, storing) as supervisor:
        assert states(supervisor.view(comparison_id)) == [RunState.INTERRUPTED]
        supervisor.resume(comparison_id)
        assert supervisor.wait(comparison_id, 30)
        view = supervisor.view(comparison_id)
        began = int((supervisor.folder(view.runs[0].run) / "process").read_text().split()[1])
    assert states(view) == [RunState.FINISHED] and steps_of(view, 0) == list(range(1, 31))
    assert 10 <= began < 30, "from a checkpoint, not from the start"


def trainers(trainer=TRAINER):
    """The processes that train on the nodes."""
    found = []
    for process in psutil.process_iter():
        try:
            if "peft_core.runs.worker" in process.cmdline() and trainer in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_closing_ends_what_trains_on_the_nodes(nodes, patient, tmp_path):
    executor = RayExecutor(tmp_path, TRAINER, RayOptions(address=nodes.address))
    with supervise(tmp_path / "home", executor) as supervisor:
        comparison_id = supervisor.submit(comparison(methods=1, steps=2000, step_seconds=0.05))
        until(lambda: supervisor.view(comparison_id).runs[0].step >= 1, 30)
        assert len(trainers()) == 1
    assert executor.processes() == []
    until(lambda: not trainers())


def swept(folder, executor, jobs):
    """A sweep: its 12 trials without their times, every cell's curve, and why workers ended early."""
    spec = checked(
        SweepSpec,
        {
            "tasks": ["acceptability"],
            "methods": ["capaboost_lora:rank=2", "lora:rank=2", "bitfit"],
            "learning_rates": [0.001, 0.002, 0.003, 0.004],
            "seeds": [0],
            "train_rows": 64,
            "validation_rows": 40,
            "training": {"steps": 8, "batch_size": 8},
        },
    )
    cells, _ = grid(spec)
    ledger = Ledger(folder / "sweep.json", [cell.key for cell in cells], lambda trials: {})
    reasons = work(cells, ledger, executor, jobs, folder, lambda trial: None)
    assert not list((folder / "cells").iterdir()), "nothing of a finished cell stays"
    curves = {file.name: set(file.read_text().splitlines()) for file in folder.glob("*.curve")}
    trials = [
        trial.model_dump(exclude={"seconds"}) | {"environment": ledger.environments[trial.environment]}
        for trial in ledger.trials
    ]
    return trials, curves, reasons


def test_a_sweep_ends_complete_where_a_node_is_lost_in_the_middle(nodes, patient, tmp_path, monkeypatch):
    ray, process = tmp_path / "ray", tmp_path / "process"
    ray.mkdir()
    process.mkdir()
    (ray / "hold").touch()

    def lose_one():
        until(lambda: len(list(ray.glob("held-*"))) == 3, 60)
        nodes.tell("lose")
        assert nodes.count() == 2
        until(lambda: len(trainers(SWEEP)) == 2, 20)
        (ray / "hold").unlink()
        monkeypatch.setattr("peft_core.runs.sweep.CELLS_OF_A_JOB", 30)
        return swept(process, ProcessExecutor(process, SWEEP, threads=1), 1)  # beside the other: it saves time

    monkeypatch.setattr("peft_core.runs.sweep.CELLS_OF_A_JOB", 4)
    executor = RayExecutor(ray, SWEEP, RayOptions(address=nodes.address))
    assert executor.slots() == 3
    with ThreadPoolExecutor(1) as beside:
        expected = beside.submit(lose_one)
        try:
            found = swept(ray, executor, 3)
        finally:
            expected.exception(90)
            nodes.tell("add")
    assert nodes.count() == 3
    trials, curves, reasons = found
    assert not reasons and len(trials) == len(curves) == 12
    assert found == expected.result(), "with every digit of every curve"
    real = [curve for name, curve in curves.items() if name.startswith("capaboost")]
    assert [len(curve) for curve in real] == [12] * 4, "eight steps, two evaluations, ranks at both"
    assert list(ray.glob("resumed-*")), "the cell at hand went on from its last checkpoint"


def test_one_actor_takes_job_after_job_also_where_the_last_one_was_ended_early(on_ray: Shared, tmp_path):
    actors = set()
    with supervise(tmp_path, on_ray) as supervisor:
        for cancelled in (False, True, False):
            comparison_id = supervisor.submit(comparison(methods=1, steps=40, step_seconds=0.02))
            reached(supervisor, comparison_id, 3)
            actors.add(worker_of(supervisor, comparison_id).ppid())
            if cancelled:
                supervisor.cancel(comparison_id)
            assert supervisor.wait(comparison_id, 15)
    assert len(actors) < 3, "one that is still being put away is not waited for"
