"""tiny-text: RoBERTa architecture, on generated passages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from peft_core.tasks._corpus import Passage, passages
from scripts.pretraining.fitting import Schedule, fit
from scripts.pretraining.tokenizing import train_bpe

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BEGIN, PAD, END, _, MASK = range(len(SPECIAL))
TEXT_VOCABULARY = 2304
TEXT_LENGTH = 256
POOL = 16
"""Batches that are drawn and sorted by length together."""
FUNCTION_WORDS = 26
"""That many of the most frequent tokens are taken to say nothing by themselves."""
KIN = 6
"""Most words of one stem that may stand for each other."""


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """The pieces of words that passages are made of, and RoBERTa's marks around a sentence and between two."""
    tokenizer = train_bpe(texts, SPECIAL, TEXT_VOCABULARY)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", BEGIN), ("</s>", END)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=TEXT_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


class TextBatches:
    """Batches of passages; in half of those with two sentences the second comes from another passage."""

    def __init__(self, tokenizer: Tokenizer, telling: torch.Tensor, seed: int, batch_size: int) -> None:
        """telling: (vocabulary,) 0 for the most frequent words."""
        self.tokenizer, self.telling, self.batch_size = tokenizer, telling, batch_size
        self.source = passages(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Token ids (rows, length), and per row 1: retold, 0: strangers, -1: a single sentence.

        Passages of about the same length share a batch.
        """
        while True:
            texts, coherent = self.pool(self.batch_size * POOL)
            encoded = self.tokenizer.encode_batch(texts)
            order = sorted(range(len(encoded)), key=lambda place: len(encoded[place].ids))
            for number in torch.randperm(POOL, generator=self.generator).tolist():
                rows = order[number * self.batch_size : (number + 1) * self.batch_size]
                length = max(len(encoded[row].ids) for row in rows)
                ids = [encoded[row].ids + [PAD] * (length - len(encoded[row].ids)) for row in rows]
                yield torch.tensor(ids), coherent[rows]

    def pool(self, count: int) -> tuple[list[str | tuple[str, str]], torch.Tensor]:
        rows: list[Passage] = list(islice(self.source, count))
        coherent = torch.full((count,), -1)
        pairs = [place for place, row in enumerate(rows) if row[1] is not None]
        flips = torch.rand(len(pairs), generator=self.generator) < 0.5
        seconds = [row[1] for row in rows]
        for turn, place in enumerate(pairs):
            coherent[place] = int(not flips[turn])
            if flips[turn]:
                seconds[place] = rows[pairs[turn - 1]][1]
        texts = [row[0] if second is None else (row[0], second) for row, second in zip(rows, seconds, strict=True)]
        return texts, coherent

    def masked(self, ids: torch.Tensor, share: float) -> torch.Tensor:
        """True where a token is hidden."""
        ordinary = ids >= len(SPECIAL)
        return ordinary & (torch.rand(ids.shape, generator=self.generator) < share)

    def exchanged(self, ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """The ids with two words of each row exchanged.

        In a row of two sentences: a telling word of the second and that word of the same sentence whose vector is most
        like its own, so that the sentence stays sound and only the first one gives the change away. Else any two.

        vectors: (vocabulary, hidden).
        """
        ordinary = (ids >= len(SPECIAL)).float()
        inside = ordinary * ((ids == END).cumsum(1) == 2) * self.telling[ids]
        one = torch.multinomial(inside + 1e-6 * ordinary, 1, generator=self.generator)
        unit = F.normalize(vectors, dim=-1)[ids]
        likeness = (unit @ unit.gather(1, one[..., None].expand(-1, -1, unit.shape[-1])).transpose(1, 2))[..., 0]
        likeness = likeness.masked_fill((inside == 0) | (ids == ids.gather(1, one)), -2.0)
        paired = (inside.sum(1, keepdim=True) > 0) & (likeness.max(1, keepdim=True).values > -2.0)
        two = torch.cat([one, likeness.argmax(1, keepdim=True)], dim=1)
        two = torch.where(paired, two, torch.multinomial(ordinary, 2, generator=self.generator))
        return ids.scatter(1, two, ids.gather(1, two.flip(1)))

    def damaged(
        self, ids: torch.Tensor, filled: torch.Tensor, kin: torch.Tensor, vectors: torch.Tensor
    ) -> torch.Tensor:
        """The ids, damaged in two rows of three: by the model's own filling, by a word's kin, or by an exchange.

        ids, filled: (rows, length). kin: (vocabulary, KIN) words of the same stem, the word itself where it has none.
        """
        ordinary = (ids >= len(SPECIAL)).float()
        choice = torch.randint(kin.shape[1], ids.shape, generator=self.generator)
        relatives = kin[ids].gather(2, choice[..., None])[..., 0]
        weights = (relatives != ids).float() + 1e-6 * ordinary
        place = torch.multinomial(weights, 1, generator=self.generator)
        varied = ids.scatter(1, place, relatives.gather(1, place))
        mode = torch.rand((len(ids), 1), generator=self.generator)
        damaged = torch.where(mode < 0.2, filled, torch.where(mode < 0.4, varied, self.exchanged(ids, vectors)))
        return torch.where(mode < 0.65, damaged, ids)


def kin_table(tokenizer: Tokenizer, used: set[int]) -> torch.Tensor:
    """(vocabulary, KIN): for every used word some others that begin alike and differ in at most three last letters."""
    words = {number: tokenizer.id_to_token(number) for number in sorted(used)}
    words = {number: word for number, word in words.items() if word.startswith("Ġ")}
    table = torch.arange(tokenizer.get_vocab_size())[:, None].repeat(1, KIN)
    for number, word in words.items():
        alike = [
            other
            for other, kin in words.items()
            if other != number and shared_beginning(word, kin) >= max(4, len(word) - 3, len(kin) - 3)
        ]
        for place in range(KIN if alike else 0):
            table[number, place] = alike[place % len(alike)]
    return table


def shared_beginning(one: str, other: str) -> int:
    """Length of the common beginning."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def pretrain_text(seed: int, folder: Path, schedule: Schedule) -> dict[str, Any]:
    """RoBERTa: masked words, which words were replaced and whether any was, whether sentences belong together.

    The judgements on whole rows are read from the last token, so the first one, which task heads read, is left to
    fine-tuning. All heads are dropped.
    """
    sample = [" ".join(part for part in passage if part) for passage in islice(passages(seed + 1), 40_000)]
    tokenizer = train_tokenizer(iter(sample))
    used = Counter(number for encoding in tokenizer.encode_batch(sample) for number in encoding.ids)
    telling = torch.ones(tokenizer.get_vocab_size())
    telling[[number for number, _ in used.most_common(FUNCTION_WORDS)]] = 0
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=TEXT_LENGTH + 2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=BEGIN,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    model = RobertaForMaskedLM(config)
    detector, judge, inspector = (nn.Linear(config.hidden_size, width) for width in (1, 2, 2))
    batches = TextBatches(tokenizer, telling, seed, schedule.batch_size)
    stream, kin = iter(batches), kin_table(tokenizer, set(used))

    def losses(step: int) -> dict[str, torch.Tensor]:
        ids, coherent = next(stream)
        attention = (ids != PAD).long()
        last = attention.sum(1) - 1
        rows = torch.arange(len(ids))
        hidden_places = batches.masked(ids, 0.2)
        states = model.roberta(ids.masked_fill(hidden_places, MASK), attention_mask=attention).last_hidden_state
        scores = model.lm_head(states[hidden_places])
        parts = {"masked_words": F.cross_entropy(scores, ids[hidden_places])}
        guesses = torch.multinomial((scores.detach() / 2).softmax(-1), 1, generator=batches.generator)[:, 0]
        vectors = model.roberta.embeddings.word_embeddings.weight.detach()
        damaged = batches.damaged(ids, ids.masked_scatter(hidden_places, guesses), kin, vectors)
        states = model.roberta(damaged, attention_mask=attention).last_hidden_state
        ends = states[rows, last]
        own = coherent != 0
        ordinary = (ids >= len(SPECIAL)) & own[:, None]
        replaced = damaged != ids
        parts["replaced_words"] = 3.0 * F.binary_cross_entropy_with_logits(
            detector(states[ordinary])[:, 0], replaced[ordinary].float()
        )
        parts["intact"] = 0.3 * F.cross_entropy(inspector(ends[own]), replaced[own].any(1).long())
        paired = coherent >= 0
        if paired.any():
            parts["same_passage"] = 0.3 * F.cross_entropy(judge(ends[paired]), coherent[paired])
        return parts

    curve = fit(nn.ModuleList([model, detector, judge, inspector]), schedule, losses)
    body = model.roberta
    body.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return {
        "objectives": {
            "masked_words": "cross-entropy of 20% hidden words",
            "replaced_words": "3 x binary cross-entropy: is this the word that stood here? In 65% of the rows some "
            "words were replaced by the model's own guesses (drawn at temperature 2), one by a word that begins alike, "
            "or two words were exchanged (in the second of two sentences: two that are used alike)",
            "intact": "0.3 x cross-entropy on the last token: was any word of the row replaced?",
            "same_passage": "0.3 x cross-entropy on the last token: does the second sentence belong to the first, or "
            "to another passage?",
        },
        "data": "generated passages without labels (peft_core/tasks/_corpus.py)",
        "curve": curve,
    }
