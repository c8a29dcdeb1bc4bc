"""``bench --what step``: the time and the peak memory of a training step, variants in turns."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from peft_core.commands._bench import (
    Step,
    bench_backbone,
    bench_batch,
    floor_step,
    interleaved,
    our_step,
    peak_bytes,
    peft_step,
)
from peft_core.methods import method_of_part
from peft_core.records import MethodSpec
from peft_core.training.environment import environment

FLOOR = "floor"
PLAIN_FLOOR = "floor, every token"
COLUMNS = (
    "label",
    "step_ms_median",
    "step_vs_reference",
    "step_vs_floor",
    "step_vs_plain_floor",
    "peak_bytes",
    "peak_vs_reference",
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios of a step of each variant; the first variant is the reference."""
    backbone = bench_backbone(options)
    batch, labels = bench_batch(backbone, options.rows, options.tokens)
    rank = options.rank
    yardstick = f"{method_of_part('yardstick').id}:rank={rank}"
    variants: dict[str, Step] = {}
    if options.against == "peft":
        variants[f"peft LoRA rank={rank}"] = peft_step(options, rank, batch, labels)
        variants[f"peft LoRA rank={2 * rank}"] = peft_step(options, 2 * rank, batch, labels)
    for spec in (yardstick, f"{yardstick},boost.d=2,boost.sparsity=0.5"):
        variants[spec] = our_step(backbone, MethodSpec.parse(spec), batch, labels)
    variants[FLOOR] = floor_step(backbone, MethodSpec.parse(yardstick), batch, labels)
    plain = bench_backbone(options)
    plain.compute_all_tokens()
    variants[PLAIN_FLOOR] = floor_step(plain, MethodSpec.parse(yardstick), batch, labels)
    times = interleaved(variants, options.repeats)
    peaks = {label: peak_bytes(step) for label, step in variants.items()}
    reference = next(iter(variants))
    rows = [
        {
            "label": label,
            "step_ms_median": 1000 * statistics.median(values),
            "step_vs_reference": ratio(values, times[reference]),
            "step_vs_floor": ratio(values, times[FLOOR]),
            "step_vs_plain_floor": ratio(values, times[PLAIN_FLOOR]),
            "peak_bytes": peaks[label],
            "peak_vs_reference": peaks[label] / peaks[reference],
        }
        for label, values in times.items()
    ]
    shape = {"model": backbone.id, "rows": options.rows, "tokens": options.tokens, "repeats": options.repeats}
    what = (
        "one AdamW step in fp32; ratios are medians of pairs; peak: bytes allocated during a step beyond the weights; "
        "floor: the frozen pass, gradients of the activations down to the first adapted site, head and optimizer, once "
        "as computed here, the last layer for the token that the head reads, and once for every token (the plain floor)"
    )
    return {
        "what": what,
        **shape,
        "reference": reference,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }


def ratio(one: list[float], other: list[float]) -> float:
    """The median of the ratios of times that were measured one after the other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
