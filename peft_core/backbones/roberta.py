"""RoBERTa (post-LN encoder): Liu et al. 2019, arXiv 1907.11692; XLM-R (Conneau et al. 2020) differs in size alone."""

from peft_core.backbones._family import SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "roberta.encoder.layer.{layer}."

FAMILY = Family(
    name="roberta",
    model_types=("roberta", "xlm-roberta"),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="roberta",
    stacks=(
        Stack(
            name="layer",
            layers="roberta.encoder.layer",
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
    embeddings=("roberta.embeddings",),
    head=("classifier.",),
    tasks={"span": SPAN},
    unused=("pooler.", "lm_head.", "embeddings.position_ids"),
    positions_reserved=2,
)
