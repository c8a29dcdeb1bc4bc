"""Text that the model writes: translation, summaries, sentences for data.

An encoder-decoder reads the source and writes the target. A decoder reads the source, a token that begins a text (its
bos, else its eos) and the target behind it; only the target's tokens are in the loss. Scores are of greedy answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.methods import Attached
from peft_core.metrics.texts import text_outcomes, text_scores
from peft_core.records import Backbone, TrainingConfig
from peft_core.tasks import Rows, TaskInfo
from peft_core.training.problems._contract import IGNORED, Encoded, Evaluation, Prediction
from peft_core.training.reading import Reading

TEXT_BATCH = 32
"""Rows evaluated at once: their logits span the vocabulary."""
MAX_LENGTH = 512
MAX_NEW_TOKENS = 64
"""Of an answer, where training did not say how long one may be."""


@dataclass(frozen=True)
class TextRows(Encoded):
    """Sources and targets. prompts: what the model reads when it answers. longest: tokens of the longest target.

    max_new_tokens: most tokens of an answer; None: what `settle` takes over from the training rows.
    """

    prompts: Encoded
    references: tuple[tuple[str, ...], ...]
    longest: int
    max_new_tokens: int | None


class Texts:
    """Cross-entropy over the target's tokens."""

    def encode(self, rows: Rows, info: TaskInfo, backbone: Backbone, training: TrainingConfig) -> TextRows:
        tokenizer = backbone.processor
        width = training.max_length or backbone.max_length or MAX_LENGTH
        references = tuple(tuple(targets) for targets in rows.columns["target"])
        sources = tokenizer(list(rows.columns["text"]), truncation=True, max_length=width)["input_ids"]
        make = _read_and_write if backbone.encoder_decoder else _continued
        tokens, labels, prompts = make(sources, [targets[0] for targets in references], backbone, width)
        pad = dict.fromkeys(tokens, tokenizer.pad_token_id or 0)
        longest = max(sum(label != IGNORED for label in row) for row in labels)
        asked = Encoded({"input_ids": prompts}, None, labels, pad)
        return TextRows(tokens, None, labels, pad, asked, references, longest, training.max_new_tokens)

    def learned(self, train: Encoded, training: TrainingConfig) -> dict[str, Any]:
        assert isinstance(train, TextRows)
        return {"max_new_tokens": train.max_new_tokens or train.longest}

    def asked(self, rows: Rows, backbone: Backbone, reading: Reading) -> Encoded:
        tokenizer = backbone.processor
        width = reading.max_length or backbone.max_length or MAX_LENGTH
        prompts = tokenizer(list(rows.columns["text"]), truncation=True, max_length=width)["input_ids"]
        if not backbone.encoder_decoder:
            begin, room = _begin_and_end(tokenizer)[0], width - (reading.max_new_tokens or MAX_NEW_TOKENS) - 1
            prompts = [[*source[: max(1, room)], begin] for source in prompts]
        return Encoded({"input_ids": prompts}, None, prompts, {"input_ids": tokenizer.pad_token_id or 0})

    @torch.inference_mode()
    def answers(
        self, attached: Attached, asked: Encoded, labels: Sequence[str] | None, reading: Reading
    ) -> list[Prediction]:
        attached.train(False)
        with attached.active():
            return [Prediction(text) for text in _written(attached, asked, reading.max_new_tokens or MAX_NEW_TOKENS)]

    def settle(self, train: Encoded, evaluation: Encoded) -> tuple[Encoded, Encoded]:
        """Answers may be as long as the longest training target, unless the settings say otherwise."""
        assert isinstance(train, TextRows)
        assert isinstance(evaluation, TextRows)
        if evaluation.max_new_tokens is not None:
            return train, evaluation
        return train, replace(evaluation, max_new_tokens=train.longest)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)

    def outputs(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits[labels != IGNORED]

    @torch.inference_mode()
    def evaluate(self, attached: Attached, rows: Encoded, info: TaskInfo, training: TrainingConfig) -> Evaluation:
        assert isinstance(rows, TextRows)
        device, total = attached.device, 0.0
        attached.train(False)
        with attached.active(), torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            for part in _by_length(rows):
                logits, labels = attached.logits(rows.batch(part, device)), rows.labels_of(part, device)
                total += float(self.loss(logits, labels)) * rows.weight(part)
            answers = _written(attached, rows.prompts, rows.max_new_tokens or rows.longest)
        found = text_outcomes(info.metrics[0], answers, rows.references)
        scores, loss = text_scores(info.metrics, answers, rows.references), total / rows.weight(range(len(rows)))
        return Evaluation(scores, loss, (found,) if found else None)

    def baseline(self, info: TaskInfo, train: Encoded, evaluation: Encoded) -> float | None:
        """The score of writing the most frequent training target for every row."""
        assert isinstance(train, TextRows)
        assert isinstance(evaluation, TextRows)
        usual = Counter(targets[0] for targets in train.references).most_common(1)[0][0]
        answers = [usual] * len(evaluation)
        return text_scores(info.metrics[:1], answers, evaluation.references)[info.metrics[0]]


Made = tuple[dict[str, list[list[int]]], list[list[int]], list[list[int]]]
"""Token fields of the model, labels, prompts."""


def _read_and_write(sources: list[list[int]], targets: list[str], backbone: Backbone, width: int) -> Made:
    labels = backbone.processor(text_target=targets, truncation=True, max_length=width)["input_ids"]
    start = backbone.decoder_start_token
    shifted = [[start, *target[:-1]] for target in labels]
    return {"input_ids": sources, "decoder_input_ids": shifted}, labels, sources


def _continued(sources: list[list[int]], targets: list[str], backbone: Backbone, width: int) -> Made:
    tokenizer: Any = backbone.processor
    begin, end = _begin_and_end(tokenizer)
    written = tokenizer(targets, truncation=True, max_length=width // 2, add_special_tokens=False)["input_ids"]
    room = width - max(len(target) for target in written) - 2
    prompts = [[*source[: max(1, room)], begin] for source in sources]
    rows, labels = [], []
    for prompt, target in zip(prompts, written, strict=True):
        rows.append([*prompt, *target, end])
        labels.append([*[IGNORED] * (len(prompt) - 1), *target, end, IGNORED])
    return {"input_ids": rows}, labels, prompts


def _begin_and_end(tokenizer: Any) -> tuple[int, int]:
    end = tokenizer.eos_token_id
    begin = tokenizer.bos_token_id
    return (begin if begin is not None else end), end


def _written(attached: Attached, prompts: Encoded, most: int) -> list[str]:
    """Greedy answers of at most so many tokens, in the order of the prompts; within `active`."""
    answers = [""] * len(prompts)
    for part in _by_length(prompts):
        written = attached.backbone.generate(prompts.batch(part, attached.device), most)
        decoded = attached.backbone.processor.batch_decode(written, skip_special_tokens=True)
        for row, text in zip(part, decoded, strict=True):
            answers[row] = text.strip()
    return answers


def _by_length(rows: Encoded) -> list[list[int]]:
    order = sorted(range(len(rows)), key=rows.lengths().__getitem__)
    return [order[start : start + TEXT_BATCH] for start in range(0, len(order), TEXT_BATCH)]
