"""What a method costs on a model, without weights and without a network: the architecture on the meta device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch

from peft_core.backbones import meta_backbone
from peft_core.methods import Attached, MethodConfig, get_method, resolve
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import TensorCount, stored_parameters, trainable_parameters, weights
from peft_core.metrics.storage import bit_level_storage_percent
from peft_core.records import Backbone, InputError, MethodSpec
from peft_core.training.reference import lora_reference_flops


@lru_cache(maxsize=8)
def _backbone(model: str) -> Backbone:
    return meta_backbone(model)


def attach_shape(model: str, method: MethodSpec, seed: int = 0) -> tuple[Attached, MethodConfig]:
    """A method attached to a model's shape: everything is counted, nothing computed. `seed` draws the masks."""
    config = resolve(method)
    try:
        attached = get_method(method.id).attach(_backbone(model), config, torch.Generator().manual_seed(seed))
    except InputError as error:
        raise InputError(f"{method.id}.{error.field}", error.value, error.allowed) from None
    return attached, config


def budget(model: str, methods: Sequence[MethodSpec], reference: MethodSpec | None = None) -> list[dict[str, Any]]:
    """One entry a method, as the command `budget` prints them (CLI.md).

    trainable is exact: the values that the drawn masks keep, biases included, head apart. weights is the papers'
    figure: biases left out, masks by formula. FLOPs are per token and forward.

    Args:
        reference: the method whose nominal FLOPs count as 1; None for LoRA at each method's own size on LoRA's sites.

    Raises:
        InputError: unknown model or method, or options that do not fit the model.
    """
    return [_entry(model, method, reference) for method in methods]


def _entry(model: str, method: MethodSpec, reference: MethodSpec | None) -> dict[str, Any]:
    attached, config = attach_shape(model, method)
    backbone, counts = attached.backbone, attached.counts
    total = backbone.parameter_count()
    nominal = adapter_flops_nominal(counts)
    yardstick = _yardstick(model, backbone, config, reference)
    updates = attached.updates()
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
        "inference_parameters": _added_at_inference(method, counts),
        "bit_level_storage_percent": bit_level_storage_percent(counts, total),
        "rank_bound": max((update.bound for update in updates), default=None),
        "adapter_flops_executed": adapter_flops_executed(counts),
        "adapter_flops_nominal": nominal,
        "flops_vs_lora": nominal / yardstick if yardstick else None,
        "flops_reference": str(reference) if reference else "lora",
        "sites": _sites(counts, {update.site: update.bound for update in updates}),
    }


def _yardstick(model: str, backbone: Backbone, config: MethodConfig, reference: MethodSpec | None) -> int | None:
    if reference is None:
        return lora_reference_flops(backbone, config)
    return adapter_flops_nominal(attach_shape(model, reference)[0].counts)


def _size(backbone: Backbone, name: str) -> int:
    return backbone.model.get_parameter(name).numel()


def _added_at_inference(method: MethodSpec, counts: Iterable[TensorCount]) -> int:
    """Parameters beside the backbone's when the run is used: none where the update merges into the weights."""
    return 0 if get_method(method.id).mergeable else stored_parameters(counts)


def _sites(counts: Iterable[TensorCount], bounds: dict[str, int]) -> list[dict[str, Any]]:
    by_site: defaultdict[str, list[TensorCount]] = defaultdict(list)
    for count in counts:
        by_site[count.site].append(count)
    return [
        {
            "name": site,
            "shape": {count.role: [count.rows, count.cols] for count in group},
            "trainable": sum(count.kept for count in group),
            "rank_bound": bounds.get(site),
        }
        for site, group in by_site.items()
    ]
