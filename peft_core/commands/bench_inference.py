"""``bench --what inference``: rows a second of an adapter beside its backbone and merged into it, variants in turns."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peft_core.backbones import initial_head
from peft_core.commands._bench import Step, attach_for_bench, bench_backbone, bench_batch, interleaved
from peft_core.commands.bench_step import ratio
from peft_core.export.merge import merge
from peft_core.export.recipe import ModelFacts, Recipe, Trained
from peft_core.methods import method_of_part, resolve
from peft_core.records import Backbone, InputError, MethodSpec
from peft_core.training.environment import environment
from peft_core.training.native import TaskFacts

BARE = "the backbone alone"
COLUMNS = ("label", "ms_median", "rows_per_second", "time_vs_bare", "time_vs_merged")
Answer = Callable[[], Tensor]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Medians and ratios of an evaluation pass of each variant; merged and unmerged answers are compared, too."""
    backbone = bench_backbone(options)
    batch, _ = bench_batch(backbone, options.rows, options.tokens)
    answers: dict[str, Answer] = {BARE: lambda: backbone.logits(batch)}
    merged_of: dict[str, str] = {}
    yardstick = f"{method_of_part('yardstick').id}:rank={options.rank}"
    for spec in map(MethodSpec.parse, (yardstick, f"{yardstick},boost.d=2,boost.sparsity=0.5")):
        unmerged, merged = str(spec), f"{spec}, merged"
        answers |= {unmerged: _unmerged(backbone, spec, batch), merged: _merged(options, spec, batch)}
        merged_of |= {unmerged: merged, merged: merged}
    if options.against == "peft":
        label = f"peft LoRA rank={options.rank}"
        answers |= {label: _peft(options, batch, False), f"{label}, merged": _peft(options, batch, True)}
        merged_of |= {label: f"{label}, merged", f"{label}, merged": f"{label}, merged"}
    with torch.no_grad():
        apart = {
            label: float((answers[label]() - answers[merged]()).abs().max())
            for label, merged in merged_of.items()
            if label != merged
        }
    times = interleaved({label: _step(answer) for label, answer in answers.items()}, options.repeats)
    rows = [
        {
            "label": label,
            "ms_median": 1000 * statistics.median(values),
            "rows_per_second": options.rows / statistics.median(values),
            "time_vs_bare": ratio(values, times[BARE]),
            "time_vs_merged": ratio(values, times[merged_of[label]]) if label in merged_of else None,
        }
        for label, values in times.items()
    ]
    return {
        "what": "an evaluation pass in fp32 without gradients; ratios are medians of pairs measured in turns",
        "model": backbone.id,
        "rows_of_a_batch": options.rows,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "largest_difference_to_merged": apart,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }


def _step(answer: Answer) -> Step:
    def step() -> None:
        with torch.no_grad():
            answer()

    return step


def _trained(backbone: Backbone, spec: MethodSpec) -> Trained:
    """The method on the backbone with an update that is not zero."""
    attached = attach_for_bench(backbone, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter.normal_(0, 0.02, generator=generator)
    attached.train_head(initial_head(backbone, 0))  # type: ignore[arg-type]
    attached.train(False)
    facts = TaskFacts(id="bench", problem=backbone.problem, outputs=2, metric="accuracy")
    config = resolve(spec)
    recipe = Recipe(
        model=ModelFacts(origin="local", id=backbone.id),
        method=spec.id,
        config=config.model_dump(),
        seed=0,
        tasks=(facts,),
    )
    return Trained(recipe, config, attached)


def _unmerged(backbone: Backbone, spec: MethodSpec, batch: dict[str, Tensor]) -> Answer:
    attached = _trained(backbone, spec).attached

    def answer() -> Tensor:
        with attached.active():
            return attached.logits(batch)

    return answer


def _merged(options: argparse.Namespace, spec: MethodSpec, batch: dict[str, Tensor]) -> Answer:
    """On a copy of the backbone, which stays merged."""
    backbone = bench_backbone(options)
    merge(_trained(backbone, spec))
    return lambda: backbone.logits(batch)


def _peft(options: argparse.Namespace, batch: dict[str, Tensor], merged: bool) -> Answer:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("against", "peft", "it must be installed first (requirements-dev.txt)") from None
    backbone = bench_backbone(options)
    targets = sorted({site.module for site in backbone.sites("qv")})
    config = LoraConfig(r=options.rank, lora_alpha=options.rank, target_modules=targets, task_type="SEQ_CLS")
    model: Any = get_peft_model(backbone.model, config).eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.02, generator=generator)
    served = model.merge_and_unload() if merged else model
    return lambda: served(**batch).logits
