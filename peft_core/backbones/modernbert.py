"""ModernBERT (pre-LN encoder with rotary positions and gated FFN): Warner et al. 2024, arXiv 2412.13663.

q, k and v are one fused map, seen as three sites; so are the two halves of the gated FFN's input, of which `ffn_gate`
goes through the activation. Some layers attend within a window; a prefix is visible from everywhere there too. Its keys
are not rotated: to a query they lie where the row begins. Published models have no bias vectors. The head reads the
first token or the mean over the real ones, as the model's own config says.
"""

from peft_core.backbones._family import Family, PlacePattern, PrefixPattern, SitePattern, Stack, TaskModel

LAYER = "model.layers.{layer}."

FAMILY = Family(
    name="modernbert",
    model_types=("modernbert",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="model",
    stacks=(
        Stack(
            name="layer",
            layers="model.layers",
            sites=(
                SitePattern("q", LAYER + "attn.Wqkv", part=0, parts=3),
                SitePattern("k", LAYER + "attn.Wqkv", part=1, parts=3),
                SitePattern("v", LAYER + "attn.Wqkv", part=2, parts=3),
                SitePattern("o", LAYER + "attn.Wo"),
                SitePattern("ffn_in", LAYER + "mlp.Wi", name="ffn_gate", part=0, parts=2),
                SitePattern("ffn_in", LAYER + "mlp.Wi", part=1, parts=2),
                SitePattern("ffn_out", LAYER + "mlp.Wo"),
            ),
            pfeiffer=(PlacePattern("ffn", "model.layers.{layer}", "residual"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attn.out_drop", "sublayer"),
                PlacePattern("ffn", LAYER + "mlp", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attn"),),
        ),
    ),
    embeddings=("model.embeddings",),
    head=("head.", "classifier."),
    tasks={"span": TaskModel("AutoModelForQuestionAnswering", ("head.", "classifier."))},
    unused=("head.", "decoder."),
    pooling="classifier_pooling",
)
