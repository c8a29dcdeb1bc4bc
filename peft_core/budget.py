"""What a method costs on a model, without weights and without a network: the architecture on the meta device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft_core.methods import Attached, MethodConfig, get_method, method_of_part
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import (
    TensorCount,
    inference_parameters,
    stored_parameters,
    trainable_parameters,
    weights,
)
from peft_core.metrics.published import published as published_figure
from peft_core.metrics.storage import bit_level_storage_percent
from peft_core.records import Backbone, MethodSpec
from peft_core.training.reference import lora_reference_flops
from peft_core.training.shape import attach_shape, shape_of


def budget(
    model: str, methods: Sequence[MethodSpec], reference: MethodSpec | None = None, tasks: int = 1
) -> list[dict[str, Any]]:
    """One entry a method, as the command `budget` prints them (CLI.md).

    trainable is exact: the values that the drawn masks keep, biases included, head apart. weights is the papers'
    figure: of what is left after training, biases left out, masks by formula. FLOPs are per token and forward. A method
    that grows counts at its target, ranks spread evenly: which map gains them is not known before, and what waits in
    reserve is not counted. Of one that prunes to a target, nominal FLOPs are of what is left.

    Args:
        tasks: how many are trained together; figures are for all of them.
        reference: the method whose nominal FLOPs count as 1; None for LoRA at each method's own size on LoRA's sites.

    Raises:
        InputError: unknown model or method, or options that do not fit the model.
    """
    return [_entry(model, method, reference, tasks) for method in methods]


def _entry(model: str, method: MethodSpec, reference: MethodSpec | None, tasks: int) -> dict[str, Any]:
    attached, config = attach_shape(model, method, tasks=tasks)
    backbone, counts = attached.backbone, counts_of(attached)
    total = backbone.parameter_count()
    nominal = adapter_flops_nominal(counts, backbone.passes)
    yardstick = _yardstick(model, backbone, config, reference)
    updates = [update for update in attached.updates() if update.kind != "bias"]
    return {
        "model": model,
        "method": str(method),
        "config": config.model_dump(),
        "backbone_parameters": total,
        "trainable": trainable_parameters(counts),
        "trainable_percent": 100 * trainable_parameters(counts) / total,
        "weights": weights(counts),
        "weights_percent": 100 * weights(counts) / total,
        "head_parameters": sum(_size(backbone, name) for name in backbone.head_parameters()),
        "stored_parameters": stored_parameters(counts),
        "inference_parameters": inference_parameters(counts, get_method(method.id).mergeable),
        "bit_level_storage_percent": bit_level_storage_percent(counts, total),
        "rank_bound": max((update.bound for update in updates), default=None),
        "adapter_flops_executed": adapter_flops_executed(counts, backbone.passes),
        "adapter_flops_nominal": nominal,
        "flops_vs_lora": nominal / yardstick if yardstick else None,
        "flops_reference": str(reference) if reference else method_of_part("yardstick").id,
        "sites": _sites(counts, {update.site: update.bound for update in updates}),
    }


def _yardstick(model: str, backbone: Backbone, config: MethodConfig, reference: MethodSpec | None) -> int | None:
    if reference is None:
        return lora_reference_flops(backbone, config)
    return adapter_flops_nominal(counts_of(attach_shape(model, reference)[0]), backbone.passes)


def counts_of(attached: Attached) -> list[TensorCount]:
    """A method's tensors that budgets count: as attached, or at its target where it grows."""
    return attached.counts_at_target() if attached.counts_at_target else attached.counts


def _size(backbone: Backbone, name: str) -> int:
    return backbone.model.get_parameter(name).numel()


def _sites(counts: Iterable[TensorCount], bounds: dict[str, int]) -> list[dict[str, Any]]:
    by_site: defaultdict[str, list[TensorCount]] = defaultdict(list)
    for count in counts:
        by_site[count.site].append(count)
    return [
        {
            "name": site,
            "shape": {count.role: [count.rows, count.cols] for count in group},
            "trainable": trainable_parameters(group),
            "rank_bound": bounds.get(site),
        }
        for site, group in by_site.items()
    ]


def published(figure: Mapping[str, str]) -> float:
    """A printed figure as its paper counts it, from our own counts.

    Args:
        figure: a row of ``assets/reference/parameter_figures.csv``: model, method (may be empty), convention, unit.

    Raises:
        InputError: an unknown model, method or convention.
    """
    backbone = shape_of(figure["model"])
    counts: list[TensorCount] = []
    reference: list[TensorCount] | None = None
    total_rank: int | None = None
    if figure["method"]:
        method = MethodSpec.parse(figure["method"])
        attached = attach_shape(figure["model"], method)[0]
        counts, total_rank = counts_of(attached), attached.total_rank
        sites = {key: value for key, value in method.options.items() if key == "sites"}
        yardstick = MethodSpec(id=method_of_part("yardstick").id, options={"rank": 8, **sites})
        reference = attach_shape(figure["model"], yardstick)[0].counts
    return published_figure(
        figure["convention"],
        figure["unit"],
        counts,
        backbone_parameters=backbone.parameter_count(),
        hidden_size=backbone.hidden_size,
        reference=reference,
        total_rank=total_rank,
    )
