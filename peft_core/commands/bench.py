"""``bench``: ratios of medians, measured in one process in turns.

A training step of ours beside Hugging Face PEFT's, or the rank of an update from its factors beside an SVD of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from peft_core.backbones import initial_head, load_backbone
from peft_core.commands._output import messages, print_json, print_table
from peft_core.methods import Attached, get_method, method_of_part, resolve
from peft_core.metrics.rank import ranks_of_factors
from peft_core.records import Backbone, InputError, MethodSpec, TrainingConfig
from peft_core.training.environment import environment
from peft_core.training.evaluate import layer_ranks
from peft_core.training.optimizer import make_optimizer

Step = Callable[[], Any]
WARMUP = 3
UPDATES = 8
"""Updates of one shape whose ranks are taken together: two maps in each of four layers, as in the model measured."""
COLUMNS = {
    "step": ("label", "step_ms_median", "step_vs_reference", "peak_bytes", "peak_vs_reference"),
    "rank": ("label", "ms_median", "ratio", "what"),
}


def bench(options: argparse.Namespace) -> int:
    """Prints step time and peak memory of LoRA, plain and under CapaBoost, and with --against peft of PEFT's LoRA."""
    for name in ("rank", "rows", "tokens", "repeats"):
        if getattr(options, name) < 1:
            raise InputError(name, getattr(options, name), "it must be a whole number, at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    document = rank_benchmark(options) if options.what == "rank" else step_benchmark(options)
    if options.out:
        Path(options.out).write_text(json.dumps(document, indent=1), encoding="utf-8")
    if options.json:
        print_json(document)
    else:
        print_table(COLUMNS[options.what], document["rows"])
    return 0


def step_benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios of a step of each variant; the first variant is the reference."""
    backbone = _backbone(options)
    batch, labels = _batch(backbone, options.rows, options.tokens)
    rank = options.rank
    yardstick = f"{method_of_part('yardstick').id}:rank={rank}"
    specs = [yardstick, f"{yardstick},boost.d=2,boost.sparsity=0.5", method_of_part("floor").id]
    variants: dict[str, Step] = {}
    if options.against == "peft":
        variants[f"peft LoRA rank={rank}"] = _peft_step(options, rank, batch, labels)
        variants[f"peft LoRA rank={2 * rank}"] = _peft_step(options, 2 * rank, batch, labels)
    variants |= {spec: _our_step(backbone, MethodSpec.parse(spec), batch, labels) for spec in specs}
    times = _interleaved(variants, options.repeats)
    peaks = {label: _peak_bytes(step) for label, step in variants.items()}
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


def rank_benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """How much faster than an SVD the rank of an update is from its factors, and its share of the training time.

    The SVD is of one update formed before, in float64, and of its singular values alone: the fastest way to the same
    spectrum. From factors it is the time of `UPDATES` updates of one shape, decomposed together as in training, over
    their number. The share is that of one measurement of all layers in the steps between two of them by default.
    """
    size, branches = 768, 2
    generator = torch.Generator().manual_seed(0)
    inner = branches * options.rank
    pairs = [
        (torch.randn((size, inner), generator=generator), torch.randn((inner, size), generator=generator))
        for _ in range(UPDATES)
    ]
    update = pairs[0][0].double() @ pairs[0][1].double()
    backbone = _backbone(options)
    spec = MethodSpec.parse(
        f"{method_of_part('yardstick').id}:rank={options.rank},boost.d={branches},boost.sparsity=0.5"
    )
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))
    train = _step_of(attached, *_batch(backbone, options.rows, options.tokens))

    def step() -> None:
        attached.train()
        train()

    labels = ("SVD of the update", "from its factors", "training step", "ranks of all layers")
    works: tuple[Callable[[], Any], ...] = (
        lambda: torch.linalg.svdvals(update),
        lambda: ranks_of_factors(pairs),
        step,
        lambda: layer_ranks(attached),
    )
    times = _interleaved(dict(zip(labels, works, strict=True)), options.repeats)
    times["from its factors"] = [seconds / UPDATES for seconds in times["from its factors"]]
    config = TrainingConfig()
    between = config.eval_interval(config.total_steps(0)) * config.rank_every
    svd, factors, steps, ranks = (times[label] for label in labels)
    faster = statistics.median(a / b for a, b in zip(svd, factors, strict=True))
    share = statistics.median(b / (between * a) for a, b in zip(steps, ranks, strict=True))
    said = (
        f"of {size} x {size}",
        f"SVD / factors, d r = {inner}",
        f"{between} between two measurements",
        "ranks / steps between",
    )
    rows = [
        {"label": label, "ms_median": 1000 * statistics.median(times[label]), "ratio": ratio, "what": what}
        for label, ratio, what in zip(labels, (None, faster, None, share), said, strict=True)
    ]
    return {
        "what": "rank of an update from its factors; ratios are medians of pairs measured in turns",
        "model": backbone.id,
        "method": str(spec),
        "shape": [size, size],
        "total_rank": inner,
        "updates_together": UPDATES,
        "rows_of_a_batch": options.rows,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "steps_between": between,
        "svd_over_factors": faster,
        "share_of_training": share,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }


def _backbone(options: argparse.Namespace) -> Backbone:
    if options.model:
        return load_backbone(options.model, outputs=2, problem="classification")
    return _wide_roberta()


def _wide_roberta() -> Backbone:
    """RoBERTa-base's width with 4 layers and random weights, the same at every call."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from peft_core.backbones._backbone import TransformerBackbone
    from peft_core.backbones.roberta import FAMILY

    config = RobertaConfig(vocab_size=8192, num_hidden_layers=4, max_position_embeddings=514, type_vocab_size=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RobertaForSequenceClassification(config)
    return TransformerBackbone("roberta-base-width-4-layers-random", FAMILY, model)


def _batch(backbone: Backbone, rows: int, tokens: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (rows,), generator=generator)
    if backbone.modality == "image":
        config: Any = backbone.model.config
        return {"pixel_values": torch.randn(rows, 3, config.image_size, config.image_size, generator=generator)}, labels
    if backbone.max_length is not None and tokens > backbone.max_length:
        raise InputError("tokens", tokens, f"{backbone.id} reads at most {backbone.max_length}")
    ids = torch.randint(10, 500, (rows, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels


def _our_step(backbone: Backbone, spec: MethodSpec, batch: dict[str, Tensor], labels: Tensor) -> Step:
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))
    return _step_of(attached, batch, labels)


def _step_of(attached: Attached, batch: dict[str, Tensor], labels: Tensor) -> Step:
    backbone = attached.backbone
    attached.train_head(initial_head(backbone, 0))  # type: ignore[arg-type]
    attached.train()
    optimizer = make_optimizer(attached.trainable(), 0.01)

    def step() -> None:
        with attached.active():
            F.cross_entropy(backbone.logits(batch), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _peft_step(options: argparse.Namespace, rank: int, batch: dict[str, Tensor], labels: Tensor) -> Step:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("against", "peft", "it must be installed first (requirements-dev.txt)") from None
    backbone = _backbone(options)
    targets = sorted({site.module for site in backbone.sites("qv")})
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, task_type="SEQ_CLS")
    model: Any = get_peft_model(backbone.model, config)  # type: ignore[arg-type]
    model.eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = make_optimizer(trained, 0.01)

    def step() -> None:
        F.cross_entropy(model(**batch).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _interleaved(variants: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of every step, the variants in turns so that a drift of the machine meets all of them."""
    for step in variants.values():
        for _ in range(WARMUP):
            step()
    times: dict[str, list[float]] = {label: [] for label in variants}
    for _ in track(range(repeats), "measuring", console=messages):
        for label, step in variants.items():
            started = time.perf_counter()
            step()
            times[label].append(time.perf_counter() - started)
    return times


def _peak_bytes(step: Step) -> int:
    """Most bytes alive at once that a step itself allocated, from the profiler's memory events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
