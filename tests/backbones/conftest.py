"""Miniatures of all families: random weights, two layers, a batch of token ids or pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from peft_core.backbones._backbone import TransformerBackbone
from tests.conftest import miniature as random_backbone
from tests.miniatures import MINIATURES

NAMES = tuple(MINIATURES)


def make_config(name: str) -> Any:
    values = dict(MINIATURES[name])
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)


def make_backbone(name: str) -> TransformerBackbone:
    return random_backbone(name, outputs=2)


def make_batch(backbone: TransformerBackbone, rows: int = 3, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if backbone.modality == "image":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    batch = {
        "input_ids": torch.randint(5, 60, (rows, width), generator=generator),
        "attention_mask": torch.ones(rows, width, dtype=torch.long),
    }
    if backbone.family == "t5":
        batch["decoder_input_ids"] = torch.randint(5, 60, (rows, 4), generator=generator)
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
    write_tokenizer(tmp_path)
    torch.manual_seed(4)
    transformers.AutoModelForMaskedLM.from_config(make_config("roberta")).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def save_tokenizer() -> Callable[[Path], None]:
    return write_tokenizer


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer of as many words as the miniatures' vocabulary has."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(f"w{number}" for number in range(55))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>"
    ).save_pretrained(folder)
