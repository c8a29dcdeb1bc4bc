"""``bench --what step``: the time and the peak memory of a training step, variants in turns."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from peft_core.commands._bench import Step, bench_backbone, bench_batch, interleaved, our_step, peak_bytes, peft_step
from peft_core.methods import method_of_part
from peft_core.records import MethodSpec
from peft_core.training.environment import environment

COLUMNS = ("label", "step_ms_median", "step_vs_reference", "peak_bytes", "peak_vs_reference")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios of a step of each variant; the first variant is the reference."""
    backbone = bench_backbone(options)
    batch, labels = bench_batch(backbone, options.rows, options.tokens)
    rank = options.rank
    yardstick = f"{method_of_part('yardstick').id}:rank={rank}"
    specs = [yardstick, f"{yardstick},boost.d=2,boost.sparsity=0.5", method_of_part("floor").id]
    variants: dict[str, Step] = {}
    if options.against == "peft":
        variants[f"peft LoRA rank={rank}"] = peft_step(options, rank, batch, labels)
        variants[f"peft LoRA rank={2 * rank}"] = peft_step(options, 2 * rank, batch, labels)
    variants |= {spec: our_step(backbone, MethodSpec.parse(spec), batch, labels) for spec in specs}
    times = interleaved(variants, options.repeats)
    peaks = {label: peak_bytes(step) for label, step in variants.items()}
    reference = next(iter(variants))
    rows = [
        {
            "label": label,
            "step_ms_median": 1000 * statistics.median(values),
            "step_vs_reference": statistics.median(a / b for a, b in zip(values, times[reference], strict=True)),
            "peak_bytes": peaks[label],
            "peak_vs_reference": peaks[label] / peaks[reference],
        }
        for label, values in times.items()
    ]
    shape = {"model": backbone.id, "rows": options.rows, "tokens": options.tokens, "repeats": options.repeats}
    what = "one AdamW step in fp32; ratios are medians of pairs; peak: bytes allocated during a step beyond the weights"
    return {
        "what": what,
        **shape,
        "reference": reference,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }
