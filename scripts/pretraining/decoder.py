"""tiny-decoder: GPT-2 architecture, on the generated corpus and on told records."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from peft_core.tasks._corpus import passages
from peft_core.tasks._grammar import chance
from peft_core.tasks._record_wordings import draw_record, record_text
from scripts.pretraining.fitting import Schedule, fit
from scripts.pretraining.tokenizing import train_bpe

SPECIAL = ("<|endoftext|>", "<pad>", "<unk>")
END, PAD, _ = range(len(SPECIAL))
VOCABULARY = 2560
LENGTH = 256
CONTEXT = 96
"""Tokens of a training row."""


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def retold_records(seed: int) -> Iterator[str]:
    """A record told twice in different wordings, or listed twice in different orders: never a record and its telling.

    Both ask for what a name or a key stood for before, which the corpus of single sentences hardly does.
    """
    rng = Random(f"corpus:records:{seed}")
    while True:
        facts, wordings = draw_record(rng)
        if chance(rng, 0.5):
            yield f"{record_text(rng, facts)} | {record_text(rng, facts)}"
        else:
            yield " ".join(wording(facts) for wording in rng.sample(wordings, 2))


def documents(seed: int) -> Iterator[str]:
    """A passage, then two records, in turn."""
    general, records = passages(seed, "decoder"), retold_records(seed)
    while True:
        yield " ".join(part for part in next(general) if part)
        yield from islice(records, 2)


def batches(tokenizer: Tokenizer, seed: int, size: int) -> Iterator[torch.Tensor]:
    """Documents one after the other, each behind an end mark: (size, CONTEXT)."""
    source = documents(seed)
    rest: list[int] = []
    while True:
        while len(rest) < size * CONTEXT:
            for encoding in tokenizer.encode_batch(list(islice(source, 512))):
                rest += [END, *encoding.ids]
        yield torch.tensor(rest[: size * CONTEXT]).reshape(size, CONTEXT)
        rest = rest[size * CONTEXT :]


def pretrain_decoder(seed: int, folder: Path, schedule: Schedule) -> dict[str, Any]:
    """GPT-2: the next token."""
    tokenizer = train_bpe(islice(documents(seed + 1), 40_000), SPECIAL, VOCABULARY)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=128,
        n_layer=4,
        n_head=4,
        n_positions=LENGTH,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = GPT2LMHeadModel(config)
    stream = batches(tokenizer, seed, schedule.batch_size)
    generator = torch.Generator().manual_seed(seed)

    def losses(step: int) -> dict[str, torch.Tensor]:
        ids = next(stream)
        start = torch.randint(LENGTH - CONTEXT, (len(ids), 1), generator=generator)
        scores = model(input_ids=ids, position_ids=start + torch.arange(CONTEXT)).logits
        return {"next_token": F.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten())}

    curve = fit(nn.ModuleList([model]), schedule, losses)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return {
        "objectives": {"next_token": "cross-entropy of the next token"},
        "data": "generated passages without labels (peft_core/tasks/_corpus.py), and records listed twice or told "
        "twice, never listed and told (peft_core/tasks/_record_wordings.py)",
        "curve": curve,
    }
