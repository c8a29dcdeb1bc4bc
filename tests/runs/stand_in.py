"""A trainer without a model: curves from a formula, and faults on request (`task_options` of the specification)."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time

from peft_core.records import EvalRecord, InputError, Plan, RunResult, RunState, StateRecord, StepRecord

TRAINER = "tests.runs.stand_in:train_comparison"


def check(spec):
    if spec.model == "missing":
        raise InputError("model", spec.model, "it must be one of stand-in")


def loss(seed, step):
    return math.cos(seed + step / 7)


def dealt(runs, workers):
    """A plan with the runs dealt in turn."""
    shares = tuple(tuple(run.run for run in runs[number::workers]) for number in range(workers))
    return Plan(workers=workers, shares=shares, chosen="given", why="as the test has it")


def train_comparison(spec, runs, *, folder, emit, notice, stop, resume, plan=None, share=0, offer=None):
    options, total = spec.task_options, spec.training.total_steps(0)
    print("a stray line on standard output")
    if options.get("fault") == "load":
        raise OSError("the weights cannot be read")
    time.sleep(options.get("load_seconds", 0))
    if plan is None:
        plan = dealt(runs, min(options.get("workers", 1), len(runs)))
        notice({"plan": plan.model_dump(mode="json")})
        runs = [run for run in runs if plan.share_of(run.run) == 0]
    assert {plan.share_of(run.run) for run in runs} == {share}
    notice({"environment": dict(os.environ) if options.get("show_environment") else {"heat": float("nan")}})
    if options.get("show_clock"):
        notice({"environment": {"clock": [time.time()]}})
    notice({"metric": "accuracy", "baseline_score": 0.5})
    at = {}
    for run in runs:
        notice({"run": run.run, "config": {"rank": 4}, "total_steps": total})
        place = folder / run.run / "at"
        at[run.run] = int(place.read_text()) if resume and place.exists() else 0
        place.parent.mkdir(exist_ok=True)
        (folder / run.run / "process").write_text(f"{os.getpid()} {json.dumps(offer and offer.model_dump())}")
        with (folder / run.run / "processes").open("a") as processes:
            processes.write(f"{os.getpid()}\n")
        emit(StateRecord(run=run.run, step=at[run.run], state=RunState.RUNNING))
    while at:
        for run in [run for run in runs if run.run in at]:
            notice({"active": [other.run for other in runs] if options.get("together") else run.run})
            if stop(run.run) and options.get("fault") != "deaf":
                emit(StateRecord(run=run.run, step=at.pop(run.run), state=RunState.CANCELLED))
                continue
            at[run.run] += 1
            one_step(run, at[run.run], emit, options)
            save(folder / run.run, at[run.run] - 1)  # one step behind, as a checkpoint may be
            if at[run.run] == total:
                emit(StateRecord(run=run.run, step=at.pop(run.run), state=RunState.FINISHED, result=result(total)))


def save(folder, step):
    (folder / "at.new").write_text(str(step))
    (folder / "at.new").replace(folder / "at")


def one_step(run, step, emit, options):
    if step == options.get("fault_step", 3) and run.run.endswith(f"-{options.get('fault_run', 0)}"):
        FAULTS.get(options.get("fault"), lambda: None)()
    time.sleep(options.get("step_seconds", 0.005))
    emit(
        StepRecord(
            run=run.run,
            step=step,
            loss=loss(run.seed, step),
            learning_rate=0.1,
            grad_norm=float("inf"),
            seconds=time.monotonic(),
            flops=1e6 * step,
            adapter_flops_executed=0,
            adapter_flops_nominal=0,
            active_parameters=10,
        )
    )
    if step % 10 == 0:
        emit(EvalRecord(run=run.run, step=step, scores={"accuracy": 0.5}, loss=0.1, seconds=0.01 * step))


def out_of_memory_on_device():
    raise MemoryError


def hoard():
    """Take memory until the system refuses it, or ends the process; at most 4 GiB."""
    held = [b"\1" * 2**20 for _ in range(4096)]
    raise AssertionError(f"{len(held)} MiB were to be had")


def disk_full():
    raise OSError(errno.ENOSPC, "No space left on device")


def device_assert():
    print("kernel.cu:92: Assertion `t >= 0 && t < n_classes` failed.", file=sys.stderr, flush=True)
    os.abort()


def freeze():
    os.kill(os.getpid(), signal.SIGSTOP)


def leave_a_child():
    subprocess.Popen(["sleep", "60"])


def spin():
    while True:
        pass


FAULTS = {
    "exit": lambda: os._exit(7),
    "segv": lambda: ctypes.string_at(0),
    "abort": device_assert,
    "raise": lambda: 1 // 0,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": out_of_memory_on_device,
    "hoard": hoard,
    "disk": disk_full,
    "hang": lambda: time.sleep(60),
    "deaf": lambda: time.sleep(60),
    "freeze": freeze,
    "spin": spin,
    "child": leave_a_child,
}


def result(steps):
    return RunResult(
        score={"accuracy": 0.9},
        baseline_score=0.5,
        split="evaluation",
        selection="last",
        selected_step=steps,
        trainable=10,
        trainable_percent=0.1,
        head_parameters=2,
        stored_bytes=100,
        head_bytes=10,
        rank=None,
        adapter_flops_executed=1,
        adapter_flops_nominal=1,
        flops_vs_lora=1.0,
        seconds=1.0,
        step_ms_median=1.0,
        peak_memory_bytes=None,
        learning_rate=0.1,
        steps=steps,
    )
