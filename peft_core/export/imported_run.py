"""An imported adapter as a finished run: its comparison, its sizes and ranks, its scores where they came along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_core.export.importing import Imported
from peft_core.export.recipe import Recipe, Trained, rebuild_update
from peft_core.export.scoring import Scored, for_task, score
from peft_core.methods import get_method
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import inference_parameters, stored_parameters, trainable_parameters
from peft_core.metrics.storage import bit_level_storage_percent
from peft_core.records import ComparisonSpec, Event, LayerRank, MethodSpec, RankOf, RankRecord, RunResult, checked
from peft_core.training.evaluate import layer_ranks, summarize_ranks
from peft_core.training.native import ADAPTER, CONFIG, HEAD


@dataclass(frozen=True)
class ImportedRun:
    """An adapter as the one run of a comparison that has finished."""

    imported: Imported
    spec: ComparisonSpec
    result: RunResult
    rank_of: RankOf
    layers: tuple[LayerRank, ...]
    scored: Scored | None

    @classmethod
    def of(cls, imported: Imported, folder: Path, asked: Mapping[str, Any] | None = None) -> ImportedRun:
        """Writes the adapter to a folder, measures its sizes and ranks, and scores it where a task is given.

        Args:
            asked: task, and perhaps task_options and eval_rows, to score it on. None: scores are those that came along.

        Raises:
            InputError: weights or rows that cannot be had, or a task that asks for other answers.
        """
        spec = spec_of(imported, **(asked or {}))
        if asked is not None:
            imported = for_task(imported, spec)
        imported.write(folder)
        trained = rebuild_update(imported.recipe, folder)
        what, layers = layer_ranks(trained.attached, [facts.id for facts in imported.recipe.tasks], spectra=True)
        result = imported.measured if imported.measured is not None else _counted(trained, folder, what, layers)
        scored = score(imported, folder, spec) if asked is not None else None
        return cls(imported, spec, scored.on(result) if scored is not None else result, what, layers, scored)

    @property
    def method(self) -> str:
        return self.imported.recipe.method

    @property
    def config(self) -> dict[str, Any]:
        return self.imported.recipe.config

    def facts(self, name: str) -> dict[str, Any]:
        """Facts of the comparison. name: of the folder that it came from."""
        model = self.imported.recipe.model.model_dump(exclude_none=True)
        found = self.scored.environment if self.scored is not None else {"model": model}
        return {
            "environment": {**found, "imported": name},
            "metric": self.scored.metric if self.scored is not None else next(iter(self.result.score)),
            "baseline_score": self.result.baseline_score,
        }

    def records(self, run: str) -> list[Event]:
        """The run's ranks and scores as its events."""
        step = self.result.selected_step
        found: list[Event] = [self.scored.record(run, step)] if self.scored is not None else []
        ranked = RankRecord(run=run, step=step, what=self.rank_of, layers=self.layers)
        return found + ([ranked] if self.layers else [])


def spec_of(imported: Imported, **asked: Any) -> ComparisonSpec:
    """A comparison of the one run. asked: its task, the task's options and evaluation rows, where they are given."""
    recipe = imported.recipe
    options = _flat(recipe)
    return checked(
        ComparisonSpec,
        {
            "model": recipe.model.id,
            "task": "+".join(facts.id for facts in recipe.tasks),
            "methods": (MethodSpec(id=recipe.method, options=options),),
            "seeds": (recipe.seed,),
            **{name: value for name, value in asked.items() if value is not None},
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
