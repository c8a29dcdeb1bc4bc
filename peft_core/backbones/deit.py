"""DeiT (pre-LN image encoder with a distillation token): Touvron et al. 2021, arXiv 2012.12877.

ViT with a second token behind the class token, which the head leaves unread. A checkpoint that was trained with a
teacher has two heads; a fresh one on the class token stands in for both.
"""

from peft_core.backbones._family import Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "deit.layers.{layer}."

FAMILY = Family(
    name="deit",
    model_types=("deit",),
    modality="image",
    auto_model="AutoModelForImageClassification",
    body="deit",
    stacks=(
        Stack(
            name="layer",
            layers="deit.layers",
            sites=(
                SitePattern("q", LAYER + "attention.q_proj"),
                SitePattern("k", LAYER + "attention.k_proj"),
                SitePattern("v", LAYER + "attention.v_proj"),
                SitePattern("o", LAYER + "attention.o_proj"),
                SitePattern("ffn_in", LAYER + "mlp.fc1"),
                SitePattern("ffn_out", LAYER + "mlp.fc2"),
            ),
            pfeiffer=(PlacePattern("ffn", "deit.layers.{layer}", "residual"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attention.o_proj", "sublayer"),
                PlacePattern("ffn", LAYER + "mlp", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attention"),),
            prompted=True,
        ),
    ),
    embeddings=("deit.embeddings",),
    head=("classifier.",),
    unused=("pooler.", "decoder.", "cls_classifier.", "distillation_classifier.", "embeddings.mask_token"),
    positions_field=None,
    special_tokens=2,
)
