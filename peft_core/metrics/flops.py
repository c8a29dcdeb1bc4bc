"""FLOPs, 2 per multiply-add (METHODS.md, section 0, FLOPs). Estimates: matrix products only."""

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


def backbone_flops(backbone: Backbone, width: int) -> int:
    """FLOPs of the frozen body per token and forward, estimated.

    Linear maps cost 2 in out, an attention block 4 width n (n: features of its queries). Embeddings, norms,
    nonlinearities, DeBERTa's table of relative positions and a generic plan's attention are left out; in an
    encoder-decoder every token is counted as if it went through both stacks.

    Args:
        backbone: where the maps are.
        width: positions of a row, which every token attends to.
    """
    linear = sum(2 * site.in_features * site.out_features for site in backbone.sites("all-linear"))
    queries = sum(site.out_features for site in backbone.sites("qv") if site.role == "q")
    return round(backbone.passes * (linear + 4 * width * queries))


def extra_token_flops(backbone: Backbone, layer: int, extra: int) -> int:
    """FLOPs per token of an image and forward of taking `extra` more tokens through one layer, rounded.

    They pass all its linear maps, and the attention's square of positions grows (counted as in `backbone_flops`).
    """
    width = backbone.image_tokens
    sites = [site for site in backbone.sites("all-linear") if site.layer == layer]
    linear = sum(2 * site.in_features * site.out_features for site in sites)
    queries = sum(site.out_features for site in sites if site.role == "q")
    return round((extra * linear + 4 * queries * ((width + extra) ** 2 - width**2)) / width)


def training_flops(backbone: Backbone, tokens: int, width: int, full: bool) -> int:
    """FLOPs of the backbone in a training step, estimated: forward and input gradient, for `full` weight gradients too.

    Args:
        backbone: the frozen model.
        tokens: tokens of the whole batch, padding included.
        width: positions of a row.
        full: True where the backbone's own weights train.
    """
    return (3 if full else 2) * tokens * backbone_flops(backbone, width)
