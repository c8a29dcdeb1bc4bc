"""T5 (pre-LN encoder-decoder): Raffel et al. 2020, arXiv 1910.10683; and mT5: Xue et al. 2021, arXiv 2010.11934.

Adapter defaults: ProPETL's T5 runs.

Layers are numbered through: encoder first, then decoder. Pfeiffer adapters sit in both, 2L places. Houlsby adapters
leave the cross-attention out. There is no task head: the model writes its answer through the embedding.
"""

from peft_core.backbones._family import SEQ2SEQ, SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack
from peft_core.records import AdapterDefaults, Role

ROLES: tuple[Role, ...] = ("q", "k", "v", "o")
ENCODER = "encoder.block.{layer}.layer."
DECODER = "decoder.block.{layer}.layer."


def _attention(module: str, prefix: str = "") -> tuple[SitePattern, ...]:
    return tuple(SitePattern(role, f"{module}.{role}", name=prefix + role) for role in ROLES)


def _feed_forward(module: str) -> tuple[SitePattern, ...]:
    """The plain form has wi, the gated form (T5 v1.1) wi_0 and wi_1."""
    return (
        SitePattern("ffn_in", module + ".wi", optional=True),
        SitePattern("ffn_in", module + ".wi_0", name="ffn_gate", optional=True),
        SitePattern("ffn_in", module + ".wi_1", optional=True),
        SitePattern("ffn_out", module + ".wo"),
    )


FAMILY = Family(
    name="t5",
    model_types=("t5", "mt5"),
    modality="text",
    auto_model="AutoModelForSeq2SeqLM",
    body="",
    stacks=(
        Stack(
            name="encoder",
            layers="encoder.block",
            sites=_attention(ENCODER + "0.SelfAttention") + _feed_forward(ENCODER + "1.DenseReluDense"),
            pfeiffer=(PlacePattern("ffn", ENCODER + "1", "residual"),),
            houlsby=(
                PlacePattern("attention", ENCODER + "0.dropout", "sublayer"),
                PlacePattern("ffn", ENCODER + "1.dropout", "sublayer"),
            ),
            prefixes=(PrefixPattern(ENCODER + "0.SelfAttention"),),
        ),
        Stack(
            name="decoder",
            layers="decoder.block",
            sites=(
                *_attention(DECODER + "0.SelfAttention"),
                *_attention(DECODER + "1.EncDecAttention", prefix="cross_"),
                *_feed_forward(DECODER + "2.DenseReluDense"),
            ),
            pfeiffer=(PlacePattern("ffn", DECODER + "2", "residual"),),
            houlsby=(
                PlacePattern("attention", DECODER + "0.dropout", "sublayer"),
                PlacePattern("ffn", DECODER + "2.dropout", "sublayer"),
            ),
            prefixes=(
                PrefixPattern(DECODER + "0.SelfAttention"),
                PrefixPattern(
                    DECODER + "1.EncDecAttention", "cross_attention", query="cross_q", key="cross_k", value="cross_v"
                ),
            ),
            attentions=2,
        ),
    ),
    embeddings=("shared", "lm_head"),
    head=(),
    unused=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.",),
    tasks={"span": SPAN, "generation": SEQ2SEQ},
    encoder_decoder=True,
    pooling="encoder_first",
    adapter_defaults=AdapterDefaults(nonlinearity="gelu_new", std=0.01),
    hidden_field="d_model",
    positions_field=None,
)
