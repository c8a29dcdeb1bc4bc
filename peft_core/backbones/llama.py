"""LLaMA (pre-LN decoder): Touvron et al. 2023, arXiv 2302.13971; and what is built alike: Mistral, Qwen2, Qwen3, Gemma.

The FFN is gated: `gate_proj` (site `ffn_gate`) and `up_proj` (site `ffn_in`) read the same input. Attention may be
grouped-query: keys and values are narrower than queries, and so is a prefix; it comes behind the rotation and Qwen3's
norm of keys, so it gets neither. The head reads the last token that is not padding. Spans are refused: transformers
names the body differently there, so a checkpoint does not fit.
"""

from peft_core.backbones._family import CAUSAL, Family, PlacePattern, PrefixPattern, SitePattern, Stack

LAYER = "model.layers.{layer}."

FAMILY = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma"),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="model",
    stacks=(
        Stack(
            name="layer",
            layers="model.layers",
            sites=(
                SitePattern("q", LAYER + "self_attn.q_proj"),
                SitePattern("k", LAYER + "self_attn.k_proj"),
                SitePattern("v", LAYER + "self_attn.v_proj"),
                SitePattern("o", LAYER + "self_attn.o_proj"),
                SitePattern("ffn_in", LAYER + "mlp.gate_proj", name="ffn_gate"),
                SitePattern("ffn_in", LAYER + "mlp.up_proj"),
                SitePattern("ffn_out", LAYER + "mlp.down_proj"),
            ),
            pfeiffer=(PlacePattern("ffn", "model.layers.{layer}", "residual"),),
            houlsby=(
                PlacePattern("attention", LAYER + "self_attn.o_proj", "sublayer"),
                PlacePattern("ffn", LAYER + "mlp.down_proj", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "self_attn"),),
        ),
    ),
    embeddings=("model.embed_tokens", "lm_head"),
    head=("score.",),
    reader="score",
    tasks={"generation": CAUSAL},
    unused=("lm_head.",),
    pooling="last",
)
