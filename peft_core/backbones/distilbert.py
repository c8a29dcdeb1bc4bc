"""DistilBERT (post-LN encoder, half of BERT's layers): Sanh et al. 2019, arXiv 1910.01108.

No dropout follows the attention's output map, so a Houlsby adapter sits at that map. There is no pooler; the head has a
hidden map of its own.
"""

from peft_core.backbones._family import SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "distilbert.transformer.layer.{layer}."

FAMILY = Family(
    name="distilbert",
    model_types=("distilbert",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="distilbert",
    stacks=(
        Stack(
            name="layer",
            layers="distilbert.transformer.layer",
            sites=(
                SitePattern("q", LAYER + "attention.q_lin"),
                SitePattern("k", LAYER + "attention.k_lin"),
                SitePattern("v", LAYER + "attention.v_lin"),
                SitePattern("o", LAYER + "attention.out_lin"),
                SitePattern("ffn_in", LAYER + "ffn.lin1"),
                SitePattern("ffn_out", LAYER + "ffn.lin2"),
            ),
            pfeiffer=(PlacePattern("ffn", LAYER + "output_layer_norm", "post_norm"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attention.out_lin", "sublayer"),
                PlacePattern("ffn", LAYER + "ffn", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attention"),),
        ),
    ),
    embeddings=("distilbert.embeddings",),
    head=("pre_classifier.", "classifier."),
    tasks={"span": SPAN},
    unused=("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "embeddings.position_ids"),
)
