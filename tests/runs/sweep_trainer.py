"""A trainer without a model for tests of sweeps: a run's score is a formula of its options."""

from __future__ import annotations

import os
import signal
import time

from peft_core.records import RunResult, RunState, StateRecord

PEAKS = {"lora": 0.003, "bitfit": 0.01}
TRAINED: list[str] = []
"""Settings that were trained in this process, in order."""


def train(spec, runs, *, folder, emit, notice, stop, resume):
    if "SWEEP_CRASH" in os.environ:
        raise OSError("the weights cannot be read")
    notice({"environment": {"task": spec.task}, "metric": "accuracy", "baseline_score": 0.5})
    for run in runs:
        TRAINED.append(f"{spec.task} {run.method} seed {run.seed}")
        rate = run.method.options["learning_rate"]
        if rate >= 1:
            emit(StateRecord(run=run.run, step=3, state=RunState.FAILED, error="the loss became nan at step 3"))
            continue
        score = 0.9 - abs(rate - PEAKS[run.method.id]) - 0.01 * run.seed
        emit(StateRecord(run=run.run, step=9, state=RunState.FINISHED, result=result(score, rate)))


def train_after_waiting(spec, runs, **given):
    """Says twice what it waits for before it trains."""
    for message in ("Worker 1 waits for room on the cluster (64 CPU).",) * 2:
        given["notice"]({"message": message})
    train(spec, runs, **given)


def train_in_steps(spec, runs, *, folder, emit, notice, stop, resume):
    """Nine steps a run, each with a checkpoint; `begun` beside the jobs' folders gets the step that a run began at.

    A file `kill` there has the process killed at the third step, `freeze` has it stopped, and `hold` has the last run
    stay there.
    """
    notice({"environment": {"task": spec.task}, "metric": "accuracy", "baseline_score": 0.5})
    for run in runs:
        kept = folder / run.run / "checkpoints" / "step"
        kept.parent.mkdir(parents=True, exist_ok=True)
        begins = int(kept.read_text()) if resume and kept.exists() else 0
        with (folder.parent / "begun").open("a") as begun:
            begun.write(f"{begins}\n")
        emit(StateRecord(run=run.run, step=begins, state=RunState.RUNNING))
        for step in range(begins + 1, 10):
            kept.with_name("new").write_text(str(step))
            kept.with_name("new").replace(kept)
            for fault, number in (("kill", signal.SIGKILL), ("freeze", signal.SIGSTOP)):
                if step == 3 and (folder.parent / fault).exists():
                    (folder.parent / fault).unlink()
                    os.kill(os.getpid(), number)
            while step == 3 and run is runs[-1] and (folder.parent / "hold").exists():
                time.sleep(0.02)
        rate = run.method.options["learning_rate"]
        emit(StateRecord(run=run.run, step=9, state=RunState.FINISHED, result=result(0.9, rate)))


def result(score: float, rate: float) -> RunResult:
    return RunResult(
        score={"accuracy": score},
        baseline_score=0.5,
        split="",
        selection="last",
        selected_step=9,
        trainable=1,
        trainable_percent=1.0,
        head_parameters=1,
        stored_bytes=1,
        head_bytes=1,
        rank=None,
        adapter_flops_executed=1,
        adapter_flops_nominal=1,
        flops_vs_lora=1.0,
        seconds=0.1,
        step_ms_median=1.0,
        peak_memory_bytes=1,
        learning_rate=rate,
        steps=9,
    )
