"""RoBERTa (post-LN encoder): Liu et al. 2019, arXiv 1907.11692; XLM-R (Conneau et al. 2020) differs in size alone."""

from peft_core.backbones._family import SPAN, Family
from peft_core.backbones._stacks import bert_layers

FAMILY = Family(
    name="roberta",
    model_types=("roberta", "xlm-roberta"),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="roberta",
    stacks=bert_layers("roberta.encoder.layer"),
    embeddings=("roberta.embeddings",),
    head=("classifier.",),
    tasks={"span": SPAN},
    unused=("pooler.", "lm_head.", "embeddings.position_ids"),
    positions_reserved=2,
)
