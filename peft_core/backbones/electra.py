"""ELECTRA (post-LN encoder, the discriminator): Clark et al. 2020, arXiv 2003.10555.

Where token embeddings are narrower than the layers, the map between them belongs to the embeddings. There is no pooler;
the head has a hidden map of its own.
"""

from peft_core.backbones._family import SPAN, Family
from peft_core.backbones._stacks import bert_layers

FAMILY = Family(
    name="electra",
    model_types=("electra",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="electra",
    stacks=bert_layers("electra.encoder.layer"),
    embeddings=("electra.embeddings", "electra.embeddings_project"),
    head=("classifier.",),
    tasks={"span": SPAN},
    unused=("discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "embeddings.position_ids"),
)
