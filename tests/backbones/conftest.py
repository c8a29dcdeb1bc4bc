"""Miniatures of all families: random weights, two layers, a batch of token ids or pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from peft_core.backbones._backbone import TransformerBackbone
from peft_core.backbones._family import families

SMALL: dict[str, dict[str, Any]] = {
    "roberta": {"vocab_size": 50, "max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1},
    "deberta_v2": {
        "vocab_size": 50,
        "max_position_embeddings": 32,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "pooler_hidden_size": 16,
    },
    "vit": {"image_size": 16, "patch_size": 8},
    "gpt2": {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
    "t5": {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NAMES = tuple(SMALL)


def make_config(name: str) -> Any:
    family = next(entry for entry in families() if entry.name == name)
    common = ENCODER if name in ("roberta", "deberta_v2", "vit") else {}
    return transformers.AutoConfig.for_model(family.model_types[0], **common, **SMALL[name])


def make_backbone(name: str) -> TransformerBackbone:
    family = next(entry for entry in families() if entry.name == name)
    torch.manual_seed(0)
    model = getattr(transformers, family.auto_model).from_config(
        make_config(name), attn_implementation=family.attention
    )
    return TransformerBackbone(name, family, model)


def make_batch(backbone: TransformerBackbone, rows: int = 3, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if backbone.modality == "image":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    batch = {
        "input_ids": torch.randint(5, 50, (rows, width), generator=generator),
        "attention_mask": torch.ones(rows, width, dtype=torch.long),
    }
    if backbone.family == "t5":
        batch["decoder_input_ids"] = torch.randint(5, 50, (rows, 4), generator=generator)
    return batch


@pytest.fixture(params=NAMES)
def miniature(request: pytest.FixtureRequest) -> TransformerBackbone:
    return make_backbone(request.param)


@pytest.fixture
def build() -> Callable[[str], TransformerBackbone]:
    return make_backbone


@pytest.fixture
def batch_for() -> Callable[..., dict[str, torch.Tensor]]:
    return make_batch


@pytest.fixture
def vit_folder(tmp_path: Path) -> Path:
    """A local ViT with its image processor and a trained head of ten classes."""
    config = make_config("vit")
    config.num_labels = 10
    torch.manual_seed(3)
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def roberta_folder(tmp_path: Path) -> Path:
    """A local RoBERTa that was pretrained as a masked language model, with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(f"w{number}" for number in range(45))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>"
    ).save_pretrained(tmp_path)
    torch.manual_seed(4)
    transformers.AutoModelForMaskedLM.from_config(make_config("roberta")).save_pretrained(tmp_path)
    return tmp_path
