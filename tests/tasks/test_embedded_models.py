"""The embedded models load with transformers alone and offline, read any text, and are what their recipe says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peft_core.tasks import get_task

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


@pytest.mark.parametrize("model", ["tiny-decoder", "tiny-seq2seq", "tiny-text", "tiny-vision"])
def test_weights_are_those_of_the_recipe(model: str) -> None:
    recipe = json.loads((MODELS / model / "recipe.json").read_text())
    weights = (MODELS / model / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == recipe["sha256"]["model.safetensors"]
    assert len(weights) < 5_500_000
    assert recipe["seconds"] < 1800
    assert recipe["command"].startswith(f"python scripts/pretrain_embedded.py --model {model} --seed {recipe['seed']}")
    assert recipe["curve"][-1]["step"] == recipe["schedule"]["steps"]


@pytest.mark.parametrize("model", ["tiny-decoder", "tiny-seq2seq", "tiny-text"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_any_text_back(text: str, model: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / model)
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_pairs_are_marked_as_roberta_does() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-text")
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("The dog", "A cat")["input_ids"])
    assert tokens[0] == "<s>" and tokens[-1] == "</s>"
    assert tokens.count("</s>") == 3 and "token_type_ids" not in tokenizer("The dog")


@pytest.mark.parametrize(("model", "task"), [("tiny-seq2seq", "translation"), ("tiny-decoder", "data_to_text")])
def test_the_words_of_its_task_are_in_the_vocabulary(model: str, task: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / model)
    rows = get_task(task).rows("eval", 300, 0, {})
    texts = [*rows.columns["text"], *(target for targets in rows.columns["target"] for target in targets)]
    tokens = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    parts = [len(text.replace(".", " .").replace(",", " ,").split()) for text in texts]
    assert sum(tokens) < 1.1 * sum(parts)


def test_the_encoder_decoder_writes_both_languages() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-seq2seq")
    model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / "tiny-seq2seq", dtype=torch.float32)
    rows = get_task("translation").rows("eval", 60, 0, {})
    texts = [*rows.columns["text"], *(target for (target,) in rows.columns["target"])]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        loss = model(**inputs, labels=inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)).loss
    assert tokenizer("The dog")["input_ids"][-1] == tokenizer.eos_token_id == model.config.eos_token_id
    assert loss.item() < 0.5


def test_the_decoder_continues_what_it_was_trained_on() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny-decoder")
    model = AutoModelForCausalLM.from_pretrained(MODELS / "tiny-decoder", dtype=torch.float32)
    rows = get_task("data_to_text").rows("eval", 60, 0, {})
    inputs = tokenizer([f"{tokenizer.bos_token}{targets[0]}" for targets in rows.columns["target"]], padding=True)
    ids, mask = (torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    assert loss.item() < 2.5


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
