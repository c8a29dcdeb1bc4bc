"""Stacks of layers that several families have, under paths of their own."""

from __future__ import annotations

from peft_core.backbones._family import PlacePattern, PrefixPattern, SitePattern, Stack


def bert_layers(path: str) -> tuple[Stack, ...]:
    """The post-LN layers of BERT and of those that keep its module names, in the module list at `path`."""
    layer = path + ".{layer}."
    stack = Stack(
        name="layer",
        layers=path,
        sites=(
            SitePattern("q", layer + "attention.self.query"),
            SitePattern("k", layer + "attention.self.key"),
            SitePattern("v", layer + "attention.self.value"),
            SitePattern("o", layer + "attention.output.dense"),
            SitePattern("ffn_in", layer + "intermediate.dense"),
            SitePattern("ffn_out", layer + "output.dense"),
        ),
        pfeiffer=(PlacePattern("ffn", layer + "output.LayerNorm", "post_norm"),),
        houlsby=(
            PlacePattern("attention", layer + "attention.output.dropout", "sublayer"),
            PlacePattern("ffn", layer + "output.dropout", "sublayer"),
        ),
        prefixes=(PrefixPattern(layer + "attention.self"),),
        after_attention=layer + "attention.output",
    )
    return (stack,)


def vit_layers(path: str) -> tuple[Stack, ...]:
    """The pre-LN layers of ViT and DeiT, in the module list at `path`.

    The layer's one dropout module runs after the attention and after the FFN, so a Houlsby adapter sits at the output
    of each sublayer just before it; the two agree while the backbone's dropout is off.
    """
    layer = path + ".{layer}."
    stack = Stack(
        name="layer",
        layers=path,
        sites=(
            SitePattern("q", layer + "attention.q_proj"),
            SitePattern("k", layer + "attention.k_proj"),
            SitePattern("v", layer + "attention.v_proj"),
            SitePattern("o", layer + "attention.o_proj"),
            SitePattern("ffn_in", layer + "mlp.fc1"),
            SitePattern("ffn_out", layer + "mlp.fc2"),
        ),
        pfeiffer=(PlacePattern("ffn", path + ".{layer}", "residual"),),
        houlsby=(
            PlacePattern("attention", layer + "attention.o_proj", "sublayer"),
            PlacePattern("ffn", layer + "mlp", "sublayer"),
        ),
        prefixes=(PrefixPattern(layer + "attention"),),
        prompted=True,
    )
    return (stack,)
