"""Small random backbones as configs, one of every architecture: what shapes them, and nothing else."""

from __future__ import annotations

from typing import Any

ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT: dict[str, Any] = {"vocab_size": 60, "max_position_embeddings": 40}

MINIATURES: dict[str, dict[str, Any]] = {
    "roberta": {"model_type": "roberta", **ENCODER, **TEXT, "type_vocab_size": 1, "pad_token_id": 1},
    "bert": {"model_type": "bert", **ENCODER, **TEXT},
    "deberta_v2": {
        "model_type": "deberta-v2",
        **ENCODER,
        **TEXT,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_hidden_size": 32,
    },
    "vit": {"model_type": "vit", **ENCODER, "image_size": 16, "patch_size": 8},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 60,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 40,
        "pad_token_id": 0,
    },
    "t5": {
        "model_type": "t5",
        "vocab_size": 60,
        "d_model": 32,
        "d_kv": 6,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    },
}
"""By name: a family's own, or a member that its file also covers."""

CORE = tuple(MINIATURES)
"""The ones on which every test of the contract runs; `tests/methods/test_families.py` is for the others."""

MINIATURES |= {
    "xlm_roberta": {**MINIATURES["roberta"], "model_type": "xlm-roberta"},
    "distilbert": {"model_type": "distilbert", **TEXT, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "electra": {"model_type": "electra", **ENCODER, **TEXT, "embedding_size": 16},
    "albert": {
        "model_type": "albert",
        **ENCODER,
        **TEXT,
        "num_hidden_layers": 4,
        "num_hidden_groups": 2,
        "embedding_size": 16,
        "hidden_dropout_prob": 0.1,
    },
    "modernbert": {
        "model_type": "modernbert",
        **ENCODER,
        **TEXT,
        "global_attn_every_n_layers": 2,
        "local_attention": 4,
        "classifier_pooling": "mean",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "cls_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
    },
    "deit": {"model_type": "deit", **ENCODER, "image_size": 16, "patch_size": 8},
}

GROUPED: dict[str, Any] = {**ENCODER, **TEXT, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}

MINIATURES |= {
    "bart": {
        "model_type": "bart",
        **TEXT,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    },
    "mt5": {**MINIATURES["t5"], "model_type": "mt5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "llama": {"model_type": "llama", **GROUPED},
    "mistral": {"model_type": "mistral", **GROUPED, "sliding_window": 5},
    "qwen2": {"model_type": "qwen2", **GROUPED},
    "qwen3": {"model_type": "qwen3", **GROUPED, "head_dim": 12},
    "gemma": {"model_type": "gemma", **GROUPED, "num_key_value_heads": 1, "head_dim": 16},
}
OTHERS = tuple(name for name in MINIATURES if name not in CORE)
