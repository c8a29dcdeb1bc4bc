"""A comparison's runs on one copy of the backbone, taking turns so that their curves grow side by side."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peft_core.backbones import initial_head, label_tokens, load_backbone, meta_backbone, model_info
from peft_core.methods import Attached, get_method, resolve
from peft_core.records import (
    Backbone,
    ComparisonSpec,
    Emit,
    Event,
    InputError,
    RunFailure,
    RunSpec,
    RunState,
    StateRecord,
)
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.data import TaskData, chosen_tasks, load_data, provenance
from peft_core.training.environment import environment, pick_device
from peft_core.training.evaluate import mean_score, primary_metric
from peft_core.training.loop import Run, train
from peft_core.training.memory import require_memory
from peft_core.training.origins import described_data, weights_sha256
from peft_core.training.result import result_of
from peft_core.training.schedule import Schedule
from peft_core.training.source import fetch_weights

if TYPE_CHECKING:
    from peft_core.backbones import ModelSource
    from peft_core.backbones._backbone import TransformerBackbone

logger = logging.getLogger(__name__)
TURN_SECONDS = 0.2
"""How long a run trains before the next one has its turn."""
SMALL_MODEL = 10_000_000
"""Parameters below which several threads gain too little to be worth their waiting for each other."""

Notice = Callable[[dict[str, Any]], None]
Stop = Callable[[str], bool]
Load = Callable[[ComparisonSpec, Backbone], tuple[TaskData, ...]]


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
    load: Load = load_data,
) -> None:
    """Trains runs of one comparison in turns and reports everything through `emit` and `notice`.

    Args:
        runs: those of the comparison's runs that are to train now.
        folder: each run's checkpoints and adapter lie in ``folder/<run id>``.
        notice: facts on the comparison as they become known (keys of ComparisonRow; `active`: the run at work).
        stop: asked between steps whether a run is to end; it ends cancelled, with a checkpoint.
        resume: continue every run from its last whole checkpoint.
        load: reads and encodes the rows; what it gives as evaluation rows is scored.

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
    described = {**environment(device), "model": _model(source)}
    notice({"environment": described, "metric": primary_metric(infos)})
    backbone = load_backbone(
        source.id,
        outputs=infos[0].outputs,
        problem=infos[0].problem,
        device=str(device),
        labels=infos[0].labels,
    )
    data = load(spec, backbone)
    notice({"environment": described | {"data": described_data(provenance(spec), data)}})
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


def _model(source: ModelSource) -> dict[str, str]:
    """What is recorded of the weights: a commit of the Hub says which they are, elsewhere their checksum does."""
    return source.described() | ({} if source.commit else {"weights_sha256": weights_sha256(source.folder)})


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
    """Lets a run train for a moment, and adds what it used to its totals. False when it has ended."""
    run = turn.run
    notice({"active": run.spec.run})
    until, ended = time.monotonic() + TURN_SECONDS, False
    try:
        with run.meter.turn(run.totals):
            while time.monotonic() < until and not ended:
                if stop(run.spec.run):
                    run.save()
                    emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.CANCELLED))
                    return False
                record = next(turn.records, None)
                ended = record is None
                if record is not None:
                    emit(record)
        if ended:
            emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.FINISHED, result=result_of(run, base)))
        return not ended
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
