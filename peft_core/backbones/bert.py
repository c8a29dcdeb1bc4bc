"""BERT (post-LN encoder): Devlin et al. 2019, arXiv 1810.04805.

The pooler, pre-trained on the order of sentences, belongs to the head: a comparison draws it anew.
"""

from peft_core.backbones._family import SPAN, Family
from peft_core.backbones._stacks import bert_layers

FAMILY = Family(
    name="bert",
    model_types=("bert",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="bert",
    stacks=bert_layers("bert.encoder.layer"),
    embeddings=("bert.embeddings",),
    head=("bert.pooler.", "classifier."),
    tasks={"span": SPAN},
    unused=("pooler.", "cls.", "embeddings.position_ids"),
)
