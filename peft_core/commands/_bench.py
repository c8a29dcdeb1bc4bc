"""What the measurements of `bench` share: a model, a batch, steps to time, times in turns, and peak memory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from peft_core.backbones import initial_head, load_backbone
from peft_core.backbones._backbone import TransformerBackbone
from peft_core.commands._output import messages
from peft_core.methods import Attached, get_method, resolve
from peft_core.records import Backbone, InputError, MethodSpec
from peft_core.training.optimizer import make_optimizer

Step = Callable[[], Any]
WARMUP = 3


def bench_backbone(options: argparse.Namespace) -> TransformerBackbone:
    if options.model:
        return load_backbone(options.model, outputs=2, problem="classification")
    return _wide_roberta()


def _wide_roberta() -> TransformerBackbone:
    """RoBERTa-base's width with 4 layers and random weights, the same at every call."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from peft_core.backbones.roberta import FAMILY

    config = RobertaConfig(vocab_size=8192, num_hidden_layers=4, max_position_embeddings=514, type_vocab_size=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RobertaForSequenceClassification(config)
    return TransformerBackbone("roberta-base-width-4-layers-random", FAMILY, model)


def bench_batch(backbone: Backbone, rows: int, tokens: int) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (rows,), generator=generator)
    if backbone.modality == "image":
        config: Any = backbone.model.config
        return {"pixel_values": torch.randn(rows, 3, config.image_size, config.image_size, generator=generator)}, labels
    if backbone.max_length is not None and tokens > backbone.max_length:
        raise InputError("tokens", tokens, f"{backbone.id} reads at most {backbone.max_length}")
    ids = torch.randint(10, 500, (rows, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels


def attach_for_bench(backbone: Backbone, spec: MethodSpec) -> Attached:
    """A method on the backbone, its modules drawn from seed 0."""
    return get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))


def floor_step(backbone: Backbone, spec: MethodSpec, batch: dict[str, Tensor], labels: Tensor) -> Step:
    """What no method at these sites can be cheaper than: the frozen pass, gradients of the activations down to the
    first adapted site, and the head with its optimizer."""
    attached = attach_for_bench(backbone, spec)
    attached.train_head(initial_head(backbone, 0))  # type: ignore[arg-type]
    head = {f"head.{name}": parameter for name, parameter in attached.head_parameters().items()}
    optimizer = make_optimizer(head, 0.01)

    def step() -> None:
        with attached.idle():
            F.cross_entropy(backbone.logits(batch), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(backbone: Backbone, spec: MethodSpec, batch: dict[str, Tensor], labels: Tensor) -> Step:
    return step_of(attach_for_bench(backbone, spec), batch, labels)


def step_of(attached: Attached, batch: dict[str, Tensor], labels: Tensor) -> Step:
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


def peft_step(options: argparse.Namespace, rank: int, batch: dict[str, Tensor], labels: Tensor) -> Step:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("against", "peft", "it must be installed first (requirements-dev.txt)") from None
    backbone = bench_backbone(options)
    backbone.compute_all_tokens()
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


def interleaved(variants: dict[str, Step], repeats: int) -> dict[str, list[float]]:
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


def peak_bytes(step: Step) -> int:
    """Most bytes alive at once that a step itself allocated, from the profiler's memory events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
