"""BART (post-LN encoder-decoder): Lewis et al. 2020, arXiv 1910.13461.

Layers are numbered through: encoder first, then decoder. Pfeiffer adapters sit in both, 2L places. Houlsby adapters
leave the cross-attention out; they sit at the output of each sublayer just before its dropout, which is no module: the
two agree while the backbone's dropout is off. For classes the decoder reads the same text as the encoder, one token
later, and the head its last token.
"""

from peft_core.backbones._family import SEQ2SEQ, SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack
from peft_core.records import Role

PROJECTIONS: dict[Role, str] = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
ENCODER = "model.encoder.layers.{layer}."
DECODER = "model.decoder.layers.{layer}."


def _attention(module: str, prefix: str = "") -> tuple[SitePattern, ...]:
    return tuple(SitePattern(role, f"{module}.{path}", name=prefix + role) for role, path in PROJECTIONS.items())


def _feed_forward(layer: str) -> tuple[SitePattern, ...]:
    return SitePattern("ffn_in", layer + "fc1"), SitePattern("ffn_out", layer + "fc2")


def _houlsby(layer: str) -> tuple[PlacePattern, ...]:
    return (
        PlacePattern("attention", layer + "self_attn.out_proj", "sublayer"),
        PlacePattern("ffn", layer + "fc2", "sublayer"),
    )


FAMILY = Family(
    name="bart",
    model_types=("bart",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="model",
    stacks=(
        Stack(
            name="encoder",
            layers="model.encoder.layers",
            sites=_attention(ENCODER + "self_attn") + _feed_forward(ENCODER),
            pfeiffer=(PlacePattern("ffn", ENCODER + "final_layer_norm", "post_norm"),),
            houlsby=_houlsby(ENCODER),
            prefixes=(PrefixPattern(ENCODER + "self_attn"),),
        ),
        Stack(
            name="decoder",
            layers="model.decoder.layers",
            sites=(
                *_attention(DECODER + "self_attn"),
                *_attention(DECODER + "encoder_attn", prefix="cross_"),
                *_feed_forward(DECODER),
            ),
            pfeiffer=(PlacePattern("ffn", DECODER + "final_layer_norm", "post_norm"),),
            houlsby=_houlsby(DECODER),
            prefixes=(
                PrefixPattern(DECODER + "self_attn"),
                PrefixPattern(
                    DECODER + "encoder_attn", "cross_attention", query="cross_q", key="cross_k", value="cross_v"
                ),
            ),
            attentions=2,
        ),
    ),
    embeddings=("model.shared", "lm_head"),
    head=("classification_head.",),
    reader="classification_head",
    tasks={"span": SPAN, "generation": SEQ2SEQ},
    unused=("lm_head.", "final_logits_bias"),
    encoder_decoder=True,
    pooling="last",
    hidden_field="d_model",
)
