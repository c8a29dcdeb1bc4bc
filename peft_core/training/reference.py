"""The yardstick of `flops_vs_lora`: LoRA at a method's own rank (or bottleneck, or length) on its default sites."""

from __future__ import annotations

from peft_core.methods import MethodConfig
from peft_core.records import Backbone

SIZES = ("rank", "length", "bottleneck", "target_rank")


def size_of(config: MethodConfig) -> int | None:
    """The method's rank, bottleneck or length; None where it has none."""
    return next((getattr(config, name) for name in SIZES if getattr(config, name, None) is not None), None)


def lora_reference_flops(backbone: Backbone, config: MethodConfig) -> int | None:
    """FLOPs per token, forward, of LoRA at the method's size: sum of 2 r (in + out) over LoRA's default sites."""
    size = size_of(config)
    if size is None:
        return None
    once = sum(2 * size * (site.in_features + site.out_features) for site in backbone.sites(None))
    return round(backbone.passes * once)
