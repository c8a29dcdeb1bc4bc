"""``bench --what memory``: what a step keeps alive for d modules that share one weight, and what a plain one does."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.backbones import initial_head
from peft_core.commands._bench import (
    Step,
    attach_for_bench,
    bench_backbone,
    bench_batch,
    floor_step,
    interleaved,
    peak_bytes,
    peft_step,
    step_of,
)
from peft_core.commands._plain_copies import plain_copies_step
from peft_core.methods import Attached, method_of_part
from peft_core.records import Backbone, MethodSpec
from peft_core.training.environment import environment
from peft_core.training.memory import kept_by_kind

BRANCHES = (1, 2, 4)
FLOOR = "floor"
COLUMNS = (
    "label",
    "peak_bytes",
    "peak_vs_reference",
    "adapter_bytes",
    "optimizer_bytes",
    "mask_bytes",
    "step_ms_median",
    "ms_above_floor",
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a step by d, beside a plain implementation's at the largest d; the first variant is the reference.

    A step's cost above the floor is the median of the differences to a floor step measured next to it.
    """
    backbone = bench_backbone(options)
    batch, labels = bench_batch(backbone, options.rows, options.tokens)
    yardstick = f"{method_of_part('yardstick').id}:rank={options.rank}"
    variants: dict[str, Step] = {}
    if options.against == "peft":
        variants[f"peft LoRA rank={options.rank}"] = peft_step(options, options.rank, batch, labels)
    lives: dict[str, dict[str, Any]] = {}
    for d in BRANCHES:
        label = f"{yardstick},boost.d={d},boost.sparsity=0.5"
        attached = attach_for_bench(backbone, MethodSpec.parse(label))
        variants[label] = step_of(attached, batch, labels)
        lives[label] = _what_lives(attached, batch, labels)
    plain = f"plain copies d={BRANCHES[-1]}"
    variants[plain], lives[plain] = _plain(backbone, MethodSpec.parse(label), batch, labels)
    variants[FLOOR] = floor_step(backbone, MethodSpec.parse(yardstick), batch, labels)
    times = interleaved(variants, options.repeats)
    above = {name: _above(values, times[FLOOR]) for name, values in times.items()}
    peaks = {name: peak_bytes(step) for name, step in variants.items()}
    reference = next(iter(variants))
    rows = [
        {
            "label": name,
            "peak_bytes": peaks[name],
            "peak_vs_reference": peaks[name] / peaks[reference],
            "step_ms_median": 1000 * statistics.median(values),
            "ms_above_floor": 1000 * above[name],
            **{kind: lives.get(name, {}).get(kind) for kind in ("adapter_bytes", "optimizer_bytes", "mask_bytes")},
        }
        for name, values in times.items()
    ]
    shape = {"model": backbone.id, "rows": options.rows, "tokens": options.tokens, "repeats": options.repeats}
    return {
        "what": "one AdamW step in fp32; peak: bytes allocated during a step beyond weights, masks and moments; "
        "plain copies: d modules of their own with masks of floats, their gradients summed by hand",
        **shape,
        "rank": options.rank,
        "reference": reference,
        "plain_over_ours": {
            "d": BRANCHES[-1],
            "cost_above_floor": above[plain] / above[label],
            "adapter_bytes": lives[plain]["adapter_bytes"] / lives[label]["adapter_bytes"],
            "optimizer_bytes": lives[plain]["optimizer_bytes"] / lives[label]["optimizer_bytes"],
        },
        "rows": rows,
        "lives": lives,
        "environment": environment(torch.device("cpu")),
    }


def _above(values: list[float], floor: list[float]) -> float:
    return statistics.median(value - low for value, low in zip(values, floor, strict=True))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _lives(own: list[nn.Parameter], masks: int) -> dict[str, Any]:
    """Bytes of the adapter, whose gradients are as many, and of AdamW's two moments of it."""
    adapter = _bytes(own)
    return {"adapter_bytes": adapter, "gradient_bytes": adapter, "optimizer_bytes": 2 * adapter, "mask_bytes": masks}


def _what_lives(attached: Attached, batch: dict[str, Tensor], labels: Tensor) -> dict[str, Any]:
    own = [value for name, value in attached.trainable().items() if name.startswith("adapter.")]
    masks = _bytes(buffer for module in attached.modules.values() for buffer in module.buffers())
    with attached.active():
        loss = F.cross_entropy(attached.backbone.logits(batch), labels)
        shared = [*attached.backbone.model.parameters(), *attached.trainable().values()]
        return _lives(own, masks) | {"kept_by_kind": kept_by_kind(loss, shared)}


def _plain(
    backbone: Backbone, spec: MethodSpec, batch: dict[str, Tensor], labels: Tensor
) -> tuple[Step, dict[str, Any]]:
    like, head = attach_for_bench(backbone, spec), initial_head(backbone, 0)  # type: ignore[arg-type]
    step, own, masks = plain_copies_step(backbone, like, head, batch, labels)
    return step, _lives(list(own.values()), masks)
