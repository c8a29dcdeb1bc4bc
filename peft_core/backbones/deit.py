"""DeiT (pre-LN image encoder with a distillation token): Touvron et al. 2021, arXiv 2012.12877.

ViT with a second token behind the class token, which the head leaves unread. A checkpoint that was trained with a
teacher has two heads; a fresh one on the class token stands in for both.
"""

from peft_core.backbones._family import Family
from peft_core.backbones._stacks import vit_layers

FAMILY = Family(
    name="deit",
    model_types=("deit",),
    modality="image",
    auto_model="AutoModelForImageClassification",
    body="deit",
    stacks=vit_layers("deit.layers"),
    embeddings=("deit.embeddings",),
    head=("classifier.",),
    unused=("pooler.", "decoder.", "cls_classifier.", "distillation_classifier.", "embeddings.mask_token"),
    positions_field=None,
    special_tokens=2,
)
