"""A method's own FLOPs by formula, 2 per multiply-add (METHODS.md, section 0): matrix products only.

What runs is counted in `training.counting`; tests hold both against each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from peft_core.metrics.parameters import TensorCount
from peft_core.records import Backbone


def adapter_flops_executed(counts: Iterable[TensorCount], passes: float = 1.0) -> int:
    """FLOPs per token and forward as run: dense products, once for every masked copy.

    Args:
        passes: how often a layer runs in one forward (`Backbone.passes`).
    """
    once = sum(count.extra_flops + _products(count, count.rows * count.cols * count.copies) for count in counts)
    return round(passes * once)


def adapter_flops_nominal(counts: Iterable[TensorCount], passes: float = 1.0) -> int:
    """FLOPs per token and forward if only the masks' non-zeros were multiplied: the papers' figure."""
    return round(passes * sum(count.extra_flops + _products(count, count.multiplied) for count in counts))


def _products(count: TensorCount, values: int) -> int:
    return 2 * values * count.readers if count.in_product else 0


def extra_token_flops(backbone: Backbone, layer: int, extra: int) -> int:
    """FLOPs per token of an image and forward of taking `extra` more tokens through one layer, rounded.

    They pass all its linear maps (2 in out each), and the attention's square of positions grows: 4 n a pair, n features
    of its queries.
    """
    width = backbone.image_tokens
    sites = [site for site in backbone.sites("all-linear") if site.layer == layer]
    linear = sum(2 * site.in_features * site.out_features for site in sites)
    queries = sum(site.out_features for site in sites if site.role == "q")
    return round((extra * linear + 4 * queries * ((width + extra) ** 2 - width**2)) / width)
