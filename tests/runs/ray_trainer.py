"""A trainer without a model that keeps checkpoints as the real one does, and the real one of sweeps under watch."""

from __future__ import annotations

import os
import time
from itertools import groupby

from peft_core.records import RunState, StateRecord, StepRecord
from peft_core.runs.job import Job
from tests.runs.stand_in import loss, result
from tests.runs.support import comparison

TRAINER = "tests.runs.ray_trainer:train_comparison"
SWEEP = "tests.runs.ray_trainer:train_cells"
EVERY, KEEP = 5, 2
TIMES = {"run", "seconds", "data_wait_seconds"}


def train_comparison(spec, runs, *, folder, emit, notice, stop, resume, plan=None, share=0, offer=None):
    total, seconds = spec.training.total_steps(0), spec.task_options.get("step_seconds", 0.02)
    notice({"metric": "accuracy", "baseline_score": 0.5})
    for run in runs:
        kept = folder / run.run / "checkpoints"
        kept.mkdir(parents=True, exist_ok=True)
        found = sorted(kept.glob("step-*.safetensors"))
        step = int(found[-1].read_text()) if resume and found else 0
        (folder / run.run / "process").write_text(f"{os.getpid()} {step}\n")
        emit(StateRecord(run=run.run, step=step, state=RunState.RUNNING))
        while step < total:
            step += 1
            time.sleep(seconds)
            emit(step_record(run, step))
            if step % EVERY == 0:
                (kept / f"step-{step:09d}.safetensors").write_text(str(step))
                for old in sorted(kept.glob("step-*.safetensors"))[:-KEEP]:
                    old.unlink()
        (folder / run.run / "adapter").mkdir(exist_ok=True)
        (folder / run.run / "adapter" / "adapter.json").write_text("{}")
        emit(StateRecord(run=run.run, step=step, state=RunState.FINISHED, result=result(step)))


def train_cells(spec, runs, *, folder, emit, notice, stop, resume):
    """CapaBoost by the real trainer of sweeps, with a checkpoint at every step; other methods, which need no torch, by
    the one above. What is left beside the jobs' folders:

    `SETTING-SEED.curve` has the events of a cell, without their times, a line each. `resumed-STEP` says that a cell has
    gone on from a checkpoint. While a file `hold` is there, the last run of a job stays at its sixth step, and
    `held-JOB` says so.
    """
    beside, by_id = folder.parent, {run.run: run for run in runs}

    def watched(event):
        emit(event)
        if event.event == "state" and event.step and event.state is RunState.RUNNING:
            (beside / f"resumed-{event.step}").touch()
        if event.event != "state":
            run = by_id[event.run]
            with (beside / f"{run.label}-{run.seed}.curve").open("a") as curve:
                curve.write(event.model_dump_json(exclude=TIMES) + "\n")
        while event.run == runs[-1].run and event.step == 6 and (beside / "hold").exists():
            (beside / f"held-{folder.name}").touch()
            time.sleep(0.02)

    for method, group in groupby(runs, key=lambda run: run.method.id):
        train = _real() if method.startswith("capaboost") else _without_a_model
        train(spec, list(group), folder=folder, emit=watched, notice=notice, stop=stop, resume=resume)


def _real():
    from peft_core.training import loop
    from peft_core.training.held_back import train_on_held_back

    loop.LATEST_SECONDS = 0.0
    return train_on_held_back


def _without_a_model(spec, runs, *, notice, **options):
    notice({"environment": {"device": "none"}})
    train_comparison(spec, runs, notice=notice, **options)


def step_record(run, step):
    return StepRecord(
        run=run.run,
        step=step,
        loss=loss(run.seed, step),
        learning_rate=0.1,
        grad_norm=1.0,
        seconds=0.1 * step,
        flops=1.0,
        adapter_flops_executed=0,
        adapter_flops_nominal=0,
        active_parameters=10,
    )


def job(folder, *, steps=12, methods=1, **fields):
    spec = comparison(methods=methods, steps=steps, step_seconds=0.0)
    runs = tuple(f"abcdefgh-{number}" for number in range(methods))
    return Job(comparison="abcdefgh", spec=spec, runs=runs, folder=folder, numbered=True, **{"resume": False} | fields)
