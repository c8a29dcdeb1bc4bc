"""The embedded models load with transformers alone and offline, read any text, and are what their recipe says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

MODELS = Path(__file__).resolve().parents[2] / "assets" / "models"
TEXTS = [
    "The dogs that chased the cat were old.",
    "  two  spaces,\ttabs\nand lines  ",
    "Zürich, 東京 and 🙂: naïve Ωmega?",
    "<s> <mask tokens> &amp; {code} = x**2;",
    "",
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("model", ["tiny-text", "tiny-vision"])
def test_weights_are_those_of_the_recipe(model: str) -> None:
    recipe = json.loads((MODELS / model / "recipe.json").read_text())
    weights = (MODELS / model / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == recipe["sha256"]["model.safetensors"]
    assert len(weights) < 5_500_000
    assert recipe["seconds"] < 1800
    assert recipe["command"].startswith(f"python scripts/pretrain_embedded.py --model {model} --seed {recipe['seed']}")
    assert recipe["curve"][-1]["step"] == recipe["schedule"]["steps"]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_any_text_back(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-text")
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_pairs_are_marked_as_roberta_does() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-text")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("The dog", "A cat")["input_ids"])
    assert tokens[0] == "<s>" and tokens[-1] == "</s>"
    assert tokens.count("</s>") == 3 and "token_type_ids" not in tokenizer("The dog")


def test_the_text_model_reads_sentences() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-text")
    model = AutoModel.from_pretrained(MODELS / "tiny-text", add_pooling_layer=False)
    longest = tokenizer(" the dog" * 400, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**longest).last_hidden_state
    assert states.shape == (1, tokenizer.model_max_length, 128) and bool(states.isfinite().all())


def test_the_vision_model_sees_images_of_any_size() -> None:
    processor = AutoImageProcessor.from_pretrained(MODELS / "tiny-vision")
    model = AutoModel.from_pretrained(MODELS / "tiny-vision", add_pooling_layer=False)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 50, 40, 3), dtype=np.uint8)
    inputs = processor(list(pixels), return_tensors="pt")
    assert inputs["pixel_values"].shape == (3, 3, 32, 32)
    with torch.no_grad():
        assert model(**inputs).last_hidden_state.shape == (3, 17, 128)
