"""ELECTRA (post-LN encoder, the discriminator): Clark et al. 2020, arXiv 2003.10555.

Where token embeddings are narrower than the layers, the map between them belongs to the embeddings. There is no pooler;
the head has a hidden map of its own.
"""

from peft_core.backbones._family import SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "electra.encoder.layer.{layer}."

FAMILY = Family(
    name="electra",
    model_types=("electra",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="electra",
    stacks=(
        Stack(
            name="layer",
            layers="electra.encoder.layer",
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
    embeddings=("electra.embeddings", "electra.embeddings_project"),
    head=("classifier.",),
    tasks={"span": SPAN},
    unused=("discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "embeddings.position_ids"),
)
