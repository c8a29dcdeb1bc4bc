"""ViT (pre-LN image encoder): Dosovitskiy et al. 2021, arXiv 2010.11929."""

from peft_core.backbones._family import Family
from peft_core.backbones._stacks import vit_layers

FAMILY = Family(
    name="vit",
    model_types=("vit",),
    modality="image",
    auto_model="AutoModelForImageClassification",
    body="vit",
    stacks=vit_layers("vit.layers"),
    embeddings=("vit.embeddings",),
    head=("classifier.",),
    unused=("pooler.", "decoder."),
    positions_field=None,
)
