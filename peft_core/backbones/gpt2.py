"""GPT-2 (pre-LN decoder): Radford et al. 2019.

Its maps are transformers' Conv1D, which keep the weight as (in, out); q, k and v are one fused c_attn. "qv" and "qkvo"
see it as three sites of one module, each with factors of its own; "six" and "all-linear" as the one map that it is, so
"six" has four maps a layer (METHODS.md, Sites). The head reads the last token that is not padding.
"""

from peft_core.backbones._family import CAUSAL, SPAN, Family, PlacePattern, PrefixPattern, SitePattern, Stack
from peft_core.records import SiteSelection

LAYER = "transformer.h.{layer}."
PARTS: tuple[SiteSelection, ...] = ("qv", "qkvo")
WHOLE: tuple[SiteSelection, ...] = ("six", "all-linear")

FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    modality="text",
    auto_model="AutoModelForSequenceClassification",
    body="transformer",
    stacks=(
        Stack(
            name="layer",
            layers="transformer.h",
            sites=(
                SitePattern("q", LAYER + "attn.c_attn", part=0, parts=3, selections=PARTS),
                SitePattern("k", LAYER + "attn.c_attn", part=1, parts=3, selections=PARTS),
                SitePattern("v", LAYER + "attn.c_attn", part=2, parts=3, selections=PARTS),
                SitePattern("qkv", LAYER + "attn.c_attn", selections=WHOLE),
                SitePattern("o", LAYER + "attn.c_proj"),
                SitePattern("ffn_in", LAYER + "mlp.c_fc"),
                SitePattern("ffn_out", LAYER + "mlp.c_proj"),
            ),
            pfeiffer=(PlacePattern("ffn", "transformer.h.{layer}", "residual"),),
            houlsby=(
                PlacePattern("attention", LAYER + "attn.resid_dropout", "sublayer"),
                PlacePattern("ffn", LAYER + "mlp.dropout", "sublayer"),
            ),
            prefixes=(PrefixPattern(LAYER + "attn"),),
        ),
    ),
    embeddings=("transformer.wte", "transformer.wpe", "lm_head"),
    head=("score.",),
    tasks={"span": SPAN, "generation": CAUSAL},
    unused=("lm_head.",),
    pooling="last",
    hidden_field="n_embd",
    positions_field="n_positions",
)
