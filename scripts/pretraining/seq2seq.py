"""tiny-seq2seq: T5 architecture, on text in two languages that were never put side by side."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from peft_core.tasks._bilingual_corpus import english_documents, second_documents
from scripts.pretraining.fitting import Schedule, fit
from scripts.pretraining.tokenizing import train_bpe

SENTINELS = tuple(f"<extra_id_{number}>" for number in range(16))
SPECIAL = ("<pad>", "</s>", "<unk>", *SENTINELS)
PAD, END, _ = range(3)
FIRST_SENTINEL = 3
VOCABULARY = 2560
LENGTH = 256
POOL = 16
"""Batches that are drawn and sorted by length together."""
IGNORED = -100

Example = tuple[list[int], list[int]]


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SENTINELS),
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def documents(seed: int) -> Iterator[str]:
    """Both languages in turn."""
    english, second = english_documents(seed), second_documents(seed)
    while True:
        yield next(english)
        yield next(second)


def corrupted_spans(rng: Random, ids: list[int]) -> Example:
    """T5's objective (Raffel et al. 2020, section 3.1.4): spans of mean length 2, about a fifth of the tokens, replaced
    by sentinels; the target names each sentinel and its tokens."""
    source: list[int] = []
    target: list[int] = []
    place, number = 0, 0
    while place < len(ids):
        if number < len(SENTINELS) and rng.random() < 0.12:
            length = 1 + int(rng.random() * 3)
            source.append(FIRST_SENTINEL + number)
            target += [FIRST_SENTINEL + number, *ids[place : place + length]]
            place, number = place + length, number + 1
        if place < len(ids):
            source.append(ids[place])
        place += 1
    return [*source, END], [*target, END]


def denoised(rng: Random, ids: list[int]) -> Example:
    """The whole text from its tokens, a tenth of them lost, in a disturbed order (by up to 3 places, or any)."""
    reach = len(ids) if rng.random() < 0.3 else 3
    kept = [token for token in ids if rng.random() >= 0.1]
    keys = [place + rng.random() * reach for place in range(len(kept))]
    order = sorted(range(len(kept)), key=keys.__getitem__)
    return [*(kept[place] for place in order), END], [*ids, END]


def examples(tokenizer: Tokenizer, seed: int, count: int) -> Iterator[list[Example]]:
    """Pools of `count` sources and targets, either objective equally often, sorted by length."""
    rng, source = Random(f"corruption:{seed}"), documents(seed)
    while True:
        encoded = tokenizer.encode_batch(list(islice(source, count)), add_special_tokens=False)
        noises = (corrupted_spans if rng.random() < 0.5 else denoised for _ in encoded)
        pool = [noise(rng, encoding.ids) for noise, encoding in zip(noises, encoded, strict=True)]
        yield sorted(pool, key=lambda example: (len(example[0]), len(example[1])))


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """(rows, longest)"""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def batches(tokenizer: Tokenizer, seed: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Sources, and targets with IGNORED for padding: (rows, length) each."""
    rng = Random(f"batches:{seed}")
    for pool in examples(tokenizer, seed, size * POOL):
        for number in rng.sample(range(POOL), POOL):
            rows = pool[number * size : (number + 1) * size]
            yield padded([row[0] for row in rows], PAD), padded([row[1] for row in rows], IGNORED)


def pretrain_seq2seq(seed: int, folder: Path, schedule: Schedule) -> dict[str, Any]:
    """T5: hidden spans, and disturbed text put right, each within one language."""
    tokenizer = train_bpe(islice(documents(seed + 1), 40_000), SPECIAL, VOCABULARY)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=128,
        d_kv=32,
        num_heads=4,
        d_ff=256,
        num_layers=3,
        num_decoder_layers=3,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=64,
        dropout_rate=0.0,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
    )
    model = T5ForConditionalGeneration(config)
    stream = batches(tokenizer, seed, schedule.batch_size)

    def losses(step: int) -> dict[str, torch.Tensor]:
        source, target = next(stream)
        scores = model(input_ids=source, attention_mask=(source != PAD).long(), labels=target).logits
        return {"hidden_and_disturbed": F.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=IGNORED)}

    curve = fit(nn.ModuleList([model]), schedule, losses)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return {
        "objectives": {
            "hidden_and_disturbed": "cross-entropy of the target, for half of the texts spans of 1 to 3 tokens that "
            "sentinels stand for, for the others the whole text, read with a tenth of its tokens lost and the rest out "
            "of order",
        },
        "data": "generated text in two languages, each by itself and of its own events, never a pair "
        "(peft_core/tasks/_bilingual_corpus.py)",
        "curve": curve,
    }
