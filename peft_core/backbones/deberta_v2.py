"""DeBERTa-v2 and v3 (post-LN encoder with relative positions): He et al. 2021, arXiv 2111.09543.

The query and key maps also transform the table of relative positions (share_att_key), so in one forward they run
twice. An update hooked to the module reaches both uses, and merging it into the weight is exact. There is no SDPA path.
"""

from peft_core.backbones._family import SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "deberta.encoder.layer.{layer}."

FAMILY = Family(
    name="deberta_v2",
    model_types=("deberta-v2",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="deberta",
    stacks=(
        Stack(
            name="layer",
            layers="deberta.encoder.layer",
            sites=(
                SitePattern("q", LAYER + "attention.self.query_proj", content=LAYER + "attention.self"),
                SitePattern("k", LAYER + "attention.self.key_proj", content=LAYER + "attention.self"),
                SitePattern("v", LAYER + "attention.self.value_proj"),
                SitePattern("o", LAYER + "attention.output.dense"),
                SitePattern("ffn_in", LAYER + "intermediate.dense"),
                SitePattern("ffn_out", LAYER + "output.dense"),
            ),
            pfeiffer=(PlacePattern("ffn", LAYER + "output.LayerNorm", "post_norm"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attention.output.dropout", "sublayer"),
                PlacePattern("ffn", LAYER + "output.dropout", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attention.self", form="projected", bias="disentangled_attention_bias"),),
            after_attention=LAYER + "attention.output",
        ),
    ),
    embeddings=("deberta.embeddings", "deberta.encoder.rel_embeddings"),
    head=("pooler.", "classifier."),
    tasks={"span": SPAN},
    unused=("lm_predictions.", "mask_predictions.", "cls."),
    default_sites="six",
    attention="eager",
)
