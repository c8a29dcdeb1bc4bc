"""What a finished run leaves: its figures, and its adapter on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from peft_core.methods import get_method, method_of_part, resolve
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import inference_parameters, stored_parameters, trainable_parameters
from peft_core.metrics.resampling import resampled_scores
from peft_core.metrics.storage import bit_level_storage_percent
from peft_core.records import InputError, MethodSpec, RunResult
from peft_core.training.counting import StepCounter
from peft_core.training.data import TaskData
from peft_core.training.environment import device_name
from peft_core.training.evaluate import evaluate, layer_ranks, summarize_ranks
from peft_core.training.loop import Run
from peft_core.training.native import TaskFacts, save_adapter, save_tasks
from peft_core.training.reference import lora_reference_flops, size_of
from peft_core.training.tried import trials_of


def result_of(run: Run, base: float | None) -> RunResult:
    """The figures of a run that has ended; its adapter is written here.

    Args:
        base: score of a model that ignores its input.
    """
    step = run.best[0] if run.best else run.total_steps
    scores = next(scores for at, scores in reversed(run.evaluations) if at == step)
    return RunResult(
        score=scores,
        baseline_score=base,
        split=_split(run.data) + _chosen_on(run),
        selection=run.training.selection,
        selected_step=step,
        learning_rate=run.peak_rate,
        steps=run.total_steps,
        trials=trials_of(run.spec, run.peak_rate),
        begun_from=run.begun,
        resampled=_resampled(run),
        **_storage(run),
        **_ranks(run, step),
        **_flops(run),
        **_time_and_memory(run),
        **_losses(run, step),
    )


def _storage(run: Run) -> dict[str, Any]:
    """What trains and what is kept, counted as it is now: after pruning or growth."""
    assert run.folder is not None
    attached, total = run.attached, run.attached.backbone.parameter_count()
    trainable, stored = trainable_parameters(attached.counts), attached.stored_counts()
    adapter_bytes, head_bytes = save_adapter(run.folder / "adapter", run.spec, run.config, attached)
    save_tasks(run.folder / "adapter", [TaskFacts.of(task.info, task.reading) for task in run.data])
    return {
        "trainable": trainable,
        "trainable_percent": 100 * trainable / total,
        "head_parameters": sum(parameter.numel() for parameter in attached.head_parameters().values()),
        "stored_bytes": adapter_bytes,
        "head_bytes": head_bytes,
        "stored_parameters": stored_parameters(stored),
        "inference_parameters": inference_parameters(stored, get_method(run.spec.method.id).mergeable),
        "bit_level_storage_percent": bit_level_storage_percent(stored, total),
    }


def _resampled(run: Run) -> tuple[float | None, ...] | None:
    """The selected model's score on resamples of the evaluation rows, the same ones for all runs of a comparison."""
    outcomes = run.best_outcomes if run.best else run.outcomes
    if outcomes is None:
        outcomes = evaluate(run.attached, run.data, run.training).outcomes
    return resampled_scores(outcomes, run.spec.comparison.data_seed) if outcomes else None


def _ranks(run: Run, step: int) -> dict[str, Any]:
    """As measured at the selected evaluation, or now where a resumed run has not kept that."""
    if run.ranks is not None and run.ranks[0] == step:
        what, layers = run.ranks[1:]
    else:
        what, layers = layer_ranks(run.attached, run.task_ids, run.training.rank_tolerance)
    return {"rank": summarize_ranks(layers), "rank_of": what if layers else None}


def _flops(run: Run) -> dict[str, Any]:
    totals, counts, passes = run.totals, run.attached.counts, run.attached.backbone.passes
    nominal = adapter_flops_nominal(run.attached.nominal_counts(), passes)
    reference, executed = lora_reference_flops(run.attached.backbone, run.config), _yardstick_flops(run)
    return {
        "adapter_flops_executed": adapter_flops_executed(counts, passes),
        "adapter_flops_nominal": nominal,
        "flops_vs_lora": nominal / reference if reference else None,
        "flops_executed_vs_lora": totals.module_flops / executed if executed else None,
        "run_flops": totals.flops,
        "run_adapter_flops_executed": totals.module_flops,
        "run_adapter_flops_nominal": totals.nominal_flops,
        "example_flops": totals.flops / totals.examples,
        "example_adapter_flops_executed": totals.module_flops / totals.examples,
        "example_adapter_flops_nominal": totals.nominal_flops / totals.examples,
    }


def _yardstick_flops(run: Run) -> int | None:
    """What LoRA at the run's rank (or bottleneck, or length) would have executed on the very same batches.

    None where the run has no such size, or LoRA does not fit at it.
    """
    size, method = size_of(run.config), method_of_part("yardstick")
    if size is None:
        return None
    spec = MethodSpec(id=method.id, options={"rank": size})
    try:
        attached = method.attach(run.attached.backbone, resolve(spec), torch.Generator().manual_seed(0))
    except InputError:
        return None
    attached.heads, attached.label_tokens = run.attached.heads, run.attached.label_tokens
    same, context, merges = f"yardstick {spec}", run.counter.step_context, run.counter.merges
    counter = StepCounter(attached, [task.train for task in run.data], same, context, merges)
    for task in range(len(run.data)):
        counter.prepare(task, 0)
    return sum(count * counter.pass_flops(key[0], key[1:]).module for key, count in run.totals.passes.items())


def _time_and_memory(run: Run) -> dict[str, Any]:
    totals, device = run.totals, run.attached.device
    return {
        "seconds": totals.seconds,
        "step_ms_median": totals.step_ms_median,
        "steps_left_out": totals.left_out,
        "examples_per_second": totals.examples_per_second,
        "data_wait_share": totals.data_wait_share,
        "device_name": device_name(device),
        "peak_memory_bytes": totals.device_peak if device.type == "cuda" else totals.host_peak,
        "peak_device_bytes": totals.device_peak,
        "peak_host_bytes": totals.host_peak,
        "energy_joules": totals.joules,
    }


def _losses(run: Run, step: int) -> dict[str, Any]:
    mean = run.totals.mean_losses
    return {
        "eval_loss": run.eval_losses.get(step),
        "train_loss": mean[0] if mean else None,
        "train_penalty": mean[1] if mean else None,
    }


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
