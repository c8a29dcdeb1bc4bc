"""BERT (post-LN encoder): Devlin et al. 2019, arXiv 1810.04805.

The pooler, pre-trained on the order of sentences, belongs to the head: a comparison draws it anew.
"""

from peft_core.backbones._family import SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "bert.encoder.layer.{layer}."

FAMILY = Family(
    name="bert",
    model_types=("bert",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="bert",
    stacks=(
        Stack(
            name="layer",
            layers="bert.encoder.layer",
            sites=(
                SitePattern("q", LAYER + "attention.self.query"),
                SitePattern("k", LAYER + "attention.self.key"),
                SitePattern("v", LAYER + "attention.self.value"),
                SitePattern("o", LAYER + "attention.output.dense"),
                SitePattern("ffn_in", LAYER + "intermediate.dense"),
                SitePattern("ffn_out", LAYER + "output.dense"),
            ),
            pfeiffer=(PlacePattern("ffn", LAYER + "output.LayerNorm", "post_norm"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attention.output.dropout", "sublayer"),
                PlacePattern("ffn", LAYER + "output.dropout", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attention.self"),),
        ),
    ),
    embeddings=("bert.embeddings",),
    head=("bert.pooler.", "classifier."),
    tasks={"span": SPAN},
    unused=("pooler.", "cls.", "embeddings.position_ids"),
)
