"""A comparison's runs on one copy of the backbone, taking turns so that their curves grow side by side."""

from __future__ import annotations

import errno
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peft_core.backbones import initial_head, label_tokens, load_backbone, meta_backbone, model_info
from peft_core.methods import Attached, get_method, resolve
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import trainable_parameters
from peft_core.metrics.resampling import resampled_scores
from peft_core.records import (
    ComparisonSpec,
    Emit,
    Event,
    InputError,
    RunFailure,
    RunResult,
    RunSpec,
    RunState,
    StateRecord,
)
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.data import TaskData, chosen_tasks, load_data, provenance
from peft_core.training.environment import environment, peak_memory_bytes, pick_device
from peft_core.training.evaluate import evaluate, layer_ranks, mean_score, primary_metric, summarize_ranks
from peft_core.training.loop import Run, train
from peft_core.training.memory import require_memory
from peft_core.training.native import save_adapter
from peft_core.training.reference import lora_reference_flops
from peft_core.training.schedule import Schedule
from peft_core.training.source import fetch_weights

if TYPE_CHECKING:
    from peft_core.backbones._backbone import TransformerBackbone

logger = logging.getLogger(__name__)
TURN_SECONDS = 0.2
"""How long a run trains before the next one has its turn."""
SMALL_MODEL = 10_000_000
"""Parameters below which several threads gain too little to be worth their waiting for each other."""
TIMED_FROM = 5
"""Steps left out of the median step time: the first ones include lazy initialisation."""

Notice = Callable[[dict[str, Any]], None]
Stop = Callable[[str], bool]


@dataclass
class _Turn:
    run: Run
    records: Iterator[Event]


def train_comparison(
    spec: ComparisonSpec,
    runs: Sequence[RunSpec],
    *,
    folder: Path,
    emit: Emit,
    notice: Notice,
    stop: Stop,
    resume: bool = False,
) -> None:
    """Trains runs of one comparison in turns and reports everything through `emit` and `notice`.

    Args:
        runs: those of the comparison's runs that are to train now.
        folder: each run's checkpoints and adapter lie in ``folder/<run id>``.
        notice: facts on the comparison as they become known (keys of ComparisonRow; `active`: the run at work).
        stop: asked between steps whether a run is to end; it ends cancelled, with a checkpoint.
        resume: continue every run from its last whole checkpoint.

    Raises:
        InputError, RunFailure: the model or the data cannot be used, so that no run can start.
    """
    device = pick_device(spec.training.device)
    source = fetch_weights(spec.model, folder, notice)
    threads = threads_for(model_info(source.id).parameters)
    torch.set_num_threads(threads)
    infos = [task.info for task, _ in chosen_tasks(spec)]
    plan: dict[str, Any] = {"execution": "apart", "workers": 1, "threads": threads}
    notice({"plan": plan})
    described = {**environment(device), "model": source.described()}
    notice({"environment": described, "metric": primary_metric(infos)})
    backbone = load_backbone(
        source.id,
        outputs=infos[0].outputs,
        problem=infos[0].problem,
        device=str(device),
        labels=infos[0].labels,
    )
    data = load_data(spec, backbone)
    notice({"environment": described | {"data": provenance(spec)}})
    base = mean_score([task.problem.baseline(task.info, task.train, task.evaluation) for task in data])
    notice({"baseline_score": base})
    lengths = [task.train.lengths() for task in data]
    schedule = Schedule(lengths, spec.training.batch_size, spec.data_seed, spec.training.temperature)
    turns: list[_Turn] = []
    for run_spec in runs:
        if stop(run_spec.run):
            emit(StateRecord(run=run_spec.run, step=0, state=RunState.CANCELLED))
            continue
        run = _start(run_spec, backbone, data, schedule, folder / run_spec.run, resume, emit, notice)
        if run is not None:
            turns.append(_Turn(run, train(run)))
    if turns:
        notice({"plan": plan | {"memory_bytes": require_memory([turn.run for turn in turns], spec.training)}})
    while turns:
        turns = [turn for turn in turns if _take_turn(turn, base, emit, notice, stop)]


def threads_for(parameters: int | None) -> int:
    """CPU threads a worker computes with: one for a small model, else one a core.

    At the embedded models' size a second thread gains little, and costs much when another program is busy. The number
    is noted in the plan.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if parameters is not None and parameters < SMALL_MODEL else cores


def _start(
    spec: RunSpec,
    backbone: TransformerBackbone,
    data: Sequence[TaskData],
    schedule: Schedule,
    folder: Path,
    resume: bool,
    emit: Emit,
    notice: Notice,
) -> Run | None:
    """Attaches a run's method; None where that failed and was reported."""
    notice({"active": spec.run})
    try:
        config = resolve(spec.method)
        attached = get_method(spec.method.id).attach(backbone, config, torch.Generator().manual_seed(spec.seed))
        _add_heads(attached, spec, backbone, data)
        run = Run(spec, config, attached, data, schedule, folder)
        if resume:
            _resume(run, notice)
    except torch.AcceleratorError:
        raise
    except FAILURES as error:
        emit(StateRecord(run=spec.run, step=0, state=RunState.FAILED, error=reason(error)))
        return None
    described = config.model_dump()
    notice({"run": spec.run, "config": described, "total_steps": run.total_steps})
    emit(StateRecord(run=spec.run, step=run.step, state=RunState.RUNNING))
    return run


def _add_heads(attached: Attached, spec: RunSpec, backbone: TransformerBackbone, data: Sequence[TaskData]) -> None:
    """A head for every task, as wide as its answers; for a model without one, the tokens that stand for them."""
    if len(data) > 1:
        attached.share_among(len(data))
        if not backbone.head_parameters():
            attached.label_tokens = [label_tokens(backbone, task.info.problem, task.info.labels) for task in data]
    for number, task in enumerate(data):
        same = task.info.outputs == backbone.outputs
        shape = backbone if same else meta_backbone(backbone.id, task.info.outputs)
        attached.train_head(initial_head(shape, spec.seed), number)


def _resume(run: Run, notice: Notice) -> None:
    assert run.folder is not None
    checkpoint, said = latest_checkpoint(run.folder / "checkpoints")
    for sentence in said:
        notice({"message": sentence})
    if checkpoint is not None:
        run.restore(checkpoint)


def _take_turn(turn: _Turn, base: float | None, emit: Emit, notice: Notice, stop: Stop) -> bool:
    """Lets a run train for a moment. False when it has ended."""
    run = turn.run
    notice({"active": run.spec.run})
    until = time.monotonic() + TURN_SECONDS
    try:
        while time.monotonic() < until:
            if stop(run.spec.run):
                run.save()
                emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.CANCELLED))
                return False
            record = next(turn.records, None)
            if record is None:
                emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.FINISHED, result=_result(run, base)))
                return False
            emit(record)
        return True
    except torch.AcceleratorError:
        raise
    except FAILURES as error:
        logger.warning("run %s failed at step %d", run.spec.run, run.step, exc_info=True)
        emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.FAILED, error=reason(error)))
        return False


FAILURES = (RunFailure, InputError, RuntimeError, MemoryError, OSError)
"""What ends one run and leaves the others alone. Anything else ends the worker: a defect, or a device assert, after
which the device answers nobody in this process."""


def reason(error: BaseException) -> str:
    """The sentence shown where a failed run's curve would be."""
    if isinstance(error, RunFailure | InputError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
        return "out of memory; a smaller batch_size, a shorter max_length or a smaller model needs less"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk full; delete runs that are not needed any more and resume"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def _result(run: Run, base: float | None) -> RunResult:
    """What the finished run leaves; its adapter is written here."""
    assert run.folder is not None
    counts = run.attached.counts
    step = run.best[0] if run.best else run.total_steps
    scores = next(scores for at, scores in reversed(run.evaluations) if at == step)
    adapter_bytes, head_bytes = save_adapter(run.folder / "adapter", run.spec, run.config, run.attached)
    trainable = trainable_parameters(counts)
    passes = run.attached.backbone.passes
    nominal = adapter_flops_nominal(counts, passes)
    reference = lora_reference_flops(run.attached.backbone, run.config)
    timed = run.step_times[TIMED_FROM:] or run.step_times
    return RunResult(
        score=scores,
        baseline_score=base,
        split=_split(run.data) + _chosen_on(run),
        selection=run.training.selection,
        selected_step=step,
        trainable=trainable,
        trainable_percent=100 * trainable / run.attached.backbone.parameter_count(),
        head_parameters=sum(parameter.numel() for parameter in run.attached.head_parameters().values()),
        stored_bytes=adapter_bytes,
        head_bytes=head_bytes,
        rank=summarize_ranks(layer_ranks(run.attached, run.task_ids)[1]),
        adapter_flops_executed=adapter_flops_executed(counts, passes),
        adapter_flops_nominal=nominal,
        flops_vs_lora=nominal / reference if reference else None,
        seconds=run.seconds,
        step_ms_median=1000 * statistics.median(timed) if timed else None,
        peak_memory_bytes=peak_memory_bytes(run.attached.device),
        learning_rate=run.peak_rate,
        steps=run.total_steps,
        resampled=_resampled(run),
    )


def _resampled(run: Run) -> tuple[float | None, ...] | None:
    """The selected model's score on resamples of the evaluation rows, the same ones for all runs of a comparison."""
    outcomes = run.best_outcomes if run.best else run.outcomes
    if outcomes is None:
        outcomes = evaluate(run.attached, run.data, run.training).outcomes
    return resampled_scores(outcomes, run.spec.comparison.data_seed) if outcomes else None


def _split(tasks: Sequence[TaskData]) -> str:
    """Which rows were used, task by task."""
    parts = [
        f"{len(task.train)} training rows, {len(task.evaluation)} evaluation rows; {task.info.protocol}"
        for task in tasks
    ]
    if len(parts) == 1:
        return parts[0]
    return " | ".join(f"{task.info.id}: {part}" for task, part in zip(tasks, parts, strict=True))


def _chosen_on(run: Run) -> str:
    if run.training.selection == "last":
        return ""
    if not run.validates:
        return "; the best evaluation was chosen on the reported rows"
    rows = sum(len(task.validation) for task in run.data if task.validation is not None)
    return f"; the best evaluation was chosen on {rows} other rows"
