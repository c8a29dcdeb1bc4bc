"""An imported adapter as a finished run: its comparison, its sizes and ranks, its scores where they came along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft_core.export.importing import Imported
from peft_core.export.recipe import Recipe, Trained, rebuild_update
from peft_core.methods import get_method
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import inference_parameters, stored_parameters, trainable_parameters
from peft_core.metrics.storage import bit_level_storage_percent
from peft_core.records import ComparisonSpec, LayerRank, MethodSpec, RankOf, RankRecord, RunResult, checked
from peft_core.training.evaluate import layer_ranks, summarize_ranks
from peft_core.training.native import ADAPTER, CONFIG, HEAD

Ranks = tuple[RankOf, tuple[LayerRank, ...]]
"""What was measured, and every layer's."""


def spec_of(imported: Imported) -> ComparisonSpec:
    """A comparison of the one run."""
    recipe = imported.recipe
    options = _flat(recipe)
    return checked(
        ComparisonSpec,
        {
            "model": recipe.model.id,
            "task": "+".join(facts.id for facts in recipe.tasks),
            "methods": (MethodSpec(id=recipe.method, options=options),),
            "seeds": (recipe.seed,),
        },
    )


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Options that differ from their defaults, groups as dotted names."""
    fields = get_method(recipe.method).Config.model_fields
    found: dict[str, Any] = {}
    for name, value in recipe.config.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": entry for inner, entry in value.items() if entry is not None}
        elif name in fields and value != fields[name].get_default(call_default_factory=True):
            found[name] = value
    return found


def result_of_import(imported: Imported, folder: Path) -> tuple[RunResult, Ranks]:
    """What is known of it without its data: sizes and ranks; scores where they came along.

    Args:
        folder: as `write` has filled it.
    """
    trained = rebuild_update(imported.recipe, folder, imported.recipe.model.id)
    what, layers = layer_ranks(trained.attached, [facts.id for facts in imported.recipe.tasks], spectra=True)
    if imported.measured is not None:
        return imported.measured, (what, layers)
    return _counted(trained, folder, what, layers), (what, layers)


def _counted(trained: Trained, folder: Path, what: RankOf, layers: tuple[LayerRank, ...]) -> RunResult:
    attached, backbone = trained.attached, trained.backbone
    counts, total, passes = attached.stored_counts(), backbone.parameter_count(), backbone.passes
    trainable = trainable_parameters(attached.counts)
    return RunResult(
        score={facts.metric: None for facts in trained.recipe.tasks},
        baseline_score=None,
        split="imported; nothing was trained or scored here",
        selection="last",
        selected_step=0,
        trainable=trainable,
        trainable_percent=100 * trainable / total,
        head_parameters=sum(value.numel() for value in attached.head_parameters().values()),
        stored_bytes=sum((folder / name).stat().st_size for name in (ADAPTER, CONFIG)),
        head_bytes=(folder / HEAD).stat().st_size,
        rank=summarize_ranks(layers),
        rank_of=what if layers else None,
        adapter_flops_executed=adapter_flops_executed(attached.counts, passes),
        adapter_flops_nominal=adapter_flops_nominal(attached.nominal_counts(), passes),
        flops_vs_lora=None,
        seconds=0.0,
        step_ms_median=None,
        peak_memory_bytes=None,
        learning_rate=trained.config.learning_rate,
        steps=0,
        stored_parameters=stored_parameters(counts),
        inference_parameters=inference_parameters(counts, get_method(trained.recipe.method).mergeable),
        bit_level_storage_percent=bit_level_storage_percent(counts, total),
    )


def rank_record(run: str, step: int, ranks: Ranks) -> RankRecord | None:
    """The ranks as a record of the run; None where there are none."""
    what, layers = ranks
    return RankRecord(run=run, step=step, what=what, layers=layers) if layers else None
