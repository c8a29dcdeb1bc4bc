"""ViT (pre-LN image encoder): Dosovitskiy et al. 2021, arXiv 2010.11929.

The layer's one dropout module runs after the attention and after the FFN, so a Houlsby adapter sits at the output of
each sublayer just before it; the two agree while the backbone's dropout is off.
"""

from peft_core.backbones._family import Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "vit.layers.{layer}."

FAMILY = Family(
    name="vit",
    model_types=("vit",),
    modality="image",
    auto_model="AutoModelForImageClassification",
    body="vit",
    stacks=(
        Stack(
            name="layer",
            layers="vit.layers",
            sites=(
                SitePattern("q", LAYER + "attention.q_proj"),
                SitePattern("k", LAYER + "attention.k_proj"),
                SitePattern("v", LAYER + "attention.v_proj"),
                SitePattern("o", LAYER + "attention.o_proj"),
                SitePattern("ffn_in", LAYER + "mlp.fc1"),
                SitePattern("ffn_out", LAYER + "mlp.fc2"),
            ),
            pfeiffer=(PlacePattern("ffn", "vit.layers.{layer}", "residual"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attention.o_proj", "sublayer"),
                PlacePattern("ffn", LAYER + "mlp", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attention"),),
            prompted=True,
        ),
    ),
    embeddings=("vit.embeddings",),
    head=("classifier.",),
    unused=("pooler.", "decoder."),
    positions_field=None,
)
