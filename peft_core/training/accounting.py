"""The FLOPs of a run's steps, added to its totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_core.methods import MethodConfig
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.records import RunSpec
from peft_core.training.totals import Passes

if TYPE_CHECKING:
    from peft_core.training.loop import Run


def account(run: Run, passes: Passes, examples: int) -> None:
    """Adds a step's FLOPs; by the nominal formula the adapter's training costs three times its forward (METHODS.md)."""
    task, totals = run.attached.task, run.totals
    parts = [run.counter.pass_flops(task, shape) for shape in passes.shapes]
    parts = parts * (1 if run.attached.second_pass is None else 2) + [run.counter.penalty_flops()]
    totals.flops += sum(part.total for part in parts)
    totals.module_flops += sum(part.module for part in parts)
    totals.nominal_flops += 3 * _nominal(run, passes) * (1 if run.attached.second_pass is None else 2)
    totals.passes.update((task, *shape) for shape in passes.shapes)


def _nominal(run: Run, passes: Passes) -> float:
    """A forward pass over the micro-batches by formula. The stacks of an encoder-decoder see different tokens, so there
    it is the dense products as counted, times the share of them that the masks keep."""
    counts, repeats = run.attached.counts, run.attached.backbone.passes
    nominal = adapter_flops_nominal(run.attached.nominal_counts(), repeats)
    if not run.attached.backbone.encoder_decoder or not nominal:
        return passes.tokens * nominal
    dense = sum(run.counter.token_products(run.attached.task, shape) for shape in passes.shapes)
    return dense * nominal / adapter_flops_executed(counts, repeats)


def same_products(spec: RunSpec, config: MethodConfig) -> str:
    """Equal for runs whose seeds alone tell them apart."""
    return f"{spec.method.id} {config.model_dump_json()} {spec.comparison.training.gradient_checkpointing}"
