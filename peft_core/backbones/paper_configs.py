"""The papers' backbones as configs, so that budgets need neither weights nor network.

Only the fields that shape the architecture; values as in each repository's config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PaperModel:
    """A published backbone. `parameters`: embeddings included, pooler and head left out."""

    id: str
    title: str
    repository: str
    license: str
    parameters: int
    config: dict[str, Any]


_ROBERTA_BASE = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
_DEBERTA_V3_BASE = {
    "model_type": "deberta-v2",
    "vocab_size": 128100,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "max_relative_positions": -1,
    "position_biased_input": False,
    "pooler_hidden_size": 768,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
}
_VIT_B16 = {
    "model_type": "vit",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "layer_norm_eps": 1e-12,
}
_GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "pad_token_id": 50256,
}
_T5_BASE = {
    "model_type": "t5",
    "vocab_size": 32128,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "decoder_start_token_id": 0,
}
_T5_3B = {**_T5_BASE, "d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_heads": 32}
_T5_3B |= {"num_layers": 24, "num_decoder_layers": 24}

PAPER_MODELS: tuple[PaperModel, ...] = (
    PaperModel("roberta-base", "RoBERTa base", "FacebookAI/roberta-base", "MIT", 124_055_040, _ROBERTA_BASE),
    PaperModel("deberta-v3-base", "DeBERTaV3 base", "microsoft/deberta-v3-base", "MIT", 183_831_552, _DEBERTA_V3_BASE),
    PaperModel("vit-b16", "ViT-B/16", "google/vit-base-patch16-224-in21k", "Apache-2.0", 85_798_656, _VIT_B16),
    PaperModel("gpt2", "GPT-2 small", "openai-community/gpt2", "MIT", 124_439_808, _GPT2),
    PaperModel("t5-base", "T5 base", "google-t5/t5-base", "Apache-2.0", 222_903_552, _T5_BASE),
    PaperModel("t5-3b", "T5 3B", "google-t5/t5-3b", "Apache-2.0", 2_851_598_336, _T5_3B),
)
