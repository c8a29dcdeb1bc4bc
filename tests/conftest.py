"""What the tests share: small random backbones of every family."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

MINIATURES = {
    "roberta": {
        "model_type": "roberta",
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "type_vocab_size": 1,
    },
    "deberta_v2": {
        "model_type": "deberta-v2",
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_hidden_size": 32,
    },
    "vit": {
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 8,
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 60,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 40,
        "pad_token_id": 0,
    },
}


def has_place(method, family: str) -> bool:
    """Whether a method says that it has a place in backbones of a family."""
    return ("image" if "image_size" in MINIATURES[family] else "text") in method.modalities


def home(method_id: str) -> str:
    """A family that a method has a place in: the first one that has it."""
    from peft_core.methods import get_method

    return next(family for family in MINIATURES if has_place(get_method(method_id), family))


def miniature(family: str, outputs: int = 3, seed: int = 0):
    """A small random backbone of a family, on the CPU."""
    import torch
    import transformers

    from peft_core.backbones._backbone import TransformerBackbone
    from peft_core.backbones._family import families

    values = dict(MINIATURES[family])
    found = next(entry for entry in families() if values["model_type"] in entry.model_types)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values, num_labels=outputs)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, found.auto_model).from_config(config)
    return TransformerBackbone(f"mini-{family}", found, model, outputs=outputs)


def batch_for(backbone, rows: int = 6, width: int = 9, seed: int = 0):
    """Random inputs of a backbone, with padding for text."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    if backbone.modality == "image":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    lengths = torch.randint(3, width + 1, (rows, 1), generator=generator)
    lengths[0] = width
    mask = (torch.arange(width) < lengths).long()
    tokens = torch.randint(4, 60, (rows, width), generator=generator)
    pad = backbone.model.config.pad_token_id or 0
    return {"input_ids": torch.where(mask.bool(), tokens, pad), "attention_mask": mask}


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """No test touches the user's store."""
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "home"))
