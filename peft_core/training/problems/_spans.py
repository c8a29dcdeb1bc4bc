"""Answers that are a span of a context: SQuAD's problem (Rajpurkar et al. 2016, arXiv 1606.05250; 2018, 1806.03822).

A context too long for the model is read in overlapping windows. A window without the answer, and a row that has none,
is labelled with the first token; so is an empty answer predicted. Predicted is the span with the largest sum of start
and end score among those of at most `MAX_ANSWER` tokens within the context, over all windows of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.methods import Attached
from peft_core.metrics.texts import text_outcomes, text_scores
from peft_core.records import Backbone, TrainingConfig
from peft_core.tasks import Rows, TaskInfo
from peft_core.training.problems._contract import EVAL_BATCH, Encoded, Evaluation, Prediction
from peft_core.training.reading import Reading

MAX_LENGTH = 384
MAX_ANSWER = 30
Answers = tuple[tuple[str, int], ...]
Offset = tuple[int, int]


@dataclass(frozen=True)
class SpanRows(Encoded):
    """Windows over the contexts of rows.

    row_of: each window's row. offsets: for every token of a window where its characters are in the context, (0, 0) for
    a token that belongs elsewhere.
    """

    row_of: tuple[int, ...]
    offsets: tuple[tuple[Offset, ...], ...]
    contexts: tuple[str, ...]
    answers: tuple[Answers, ...]


class Spans:
    """Cross-entropy over the tokens of a window, for the start and for the end."""

    def encode(self, rows: Rows, info: TaskInfo, backbone: Backbone, training: TrainingConfig) -> SpanRows:
        return _windows(rows, backbone, training.max_length, tuple(rows.columns["answers"]))

    def learned(self, train: Encoded, training: TrainingConfig) -> dict[str, Any]:
        assert isinstance(train, SpanRows)
        return {"empty_answers": any(not answers for answers in train.answers)}

    def asked(self, rows: Rows, backbone: Backbone, reading: Reading) -> SpanRows:
        return _windows(rows, backbone, reading.max_length, ((),) * len(rows))

    @torch.inference_mode()
    def answers(
        self, attached: Attached, asked: Encoded, labels: Sequence[str] | None, reading: Reading
    ) -> list[Prediction]:
        assert isinstance(asked, SpanRows)
        found = BestSpans(asked)
        for part, logits in _passes(attached, asked, "fp32"):
            found.take(part, logits.cpu())
        return [found.prediction(row, reading.empty_answers) for row in range(len(asked.contexts))]

    def settle(self, train: Encoded, evaluation: Encoded) -> tuple[Encoded, Encoded]:
        return train, evaluation

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.outputs(logits, labels).float(), labels.flatten())

    def outputs(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.transpose(1, 2).flatten(0, 1)

    @torch.inference_mode()
    def evaluate(self, attached: Attached, rows: Encoded, info: TaskInfo, training: TrainingConfig) -> Evaluation:
        assert isinstance(rows, SpanRows)
        found, loss = BestSpans(rows), 0.0
        for part, logits in _passes(attached, rows, training.precision):
            loss += float(self.loss(logits, rows.labels_of(part, attached.device))) * len(part)
            found.take(part, logits.cpu())
        maybe_empty = any(not answers for answers in rows.answers)
        predictions = [str(found.prediction(row, maybe_empty).answer) for row in range(len(rows.contexts))]
        references = _references(rows)
        outcomes = text_outcomes(info.metrics[0], predictions, references)
        scores = text_scores(info.metrics, predictions, references)
        return Evaluation(scores, loss / len(rows), (outcomes,) if outcomes else None)

    def baseline(self, info: TaskInfo, train: Encoded, evaluation: Encoded) -> float | None:
        """The score of saying for every row that there is no answer."""
        assert isinstance(evaluation, SpanRows)
        references = _references(evaluation)
        return text_scores(info.metrics[:1], [""] * len(references), references)[info.metrics[0]]


def _windows(rows: Rows, backbone: Backbone, max_length: int | None, answers: tuple[Answers, ...]) -> SpanRows:
    tokenizer = backbone.processor
    limits = [limit for limit in (max_length or MAX_LENGTH, backbone.max_length) if limit is not None]
    width = min(limits)
    contexts = tuple(rows.columns["context"])
    fields = tokenizer(
        [_cut(question, tokenizer, width // 2) for question in rows.columns["question"]],
        list(contexts),
        truncation="only_second",
        max_length=width,
        stride=width // 3 if width >= MAX_LENGTH else width // 8,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    row_of = tuple(fields["overflow_to_sample_mapping"])
    offsets = tuple(_within_context(fields, window) for window in range(len(row_of)))
    labels = [_label(offset, answers[row]) for offset, row in zip(offsets, row_of, strict=True)]
    tokens = {name: list(fields[name]) for name in ("input_ids", "token_type_ids") if name in fields}
    pad = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": 0}
    return SpanRows(tokens, None, torch.tensor(labels), pad, row_of, offsets, contexts, answers)


def _cut(question: str, tokenizer: object, most: int) -> str:
    """The question, at most this many tokens of it."""
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]  # type: ignore[operator]
    return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def _within_context(fields: object, window: int) -> tuple[Offset, ...]:
    pairs = zip(fields["offset_mapping"][window], fields.sequence_ids(window), strict=True)  # type: ignore[index, attr-defined]
    return tuple(tuple(offset) if part == 1 else (0, 0) for offset, part in pairs)


def _label(offsets: Sequence[Offset], answers: Answers) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) where the window does not hold all of it."""
    if not answers:
        return 0, 0
    text, begin = answers[0]
    end = begin + len(text)
    inside = [place for place, (first, last) in enumerate(offsets) if last > first and first < end and last > begin]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def best_span(scores: Tensor, offsets: Sequence[Offset]) -> tuple[float, int, int] | None:
    """The best span of a window: (score, first character, character after the last); None without context.

    Args:
        scores: (tokens, 2), start and end; padding after the window's tokens does not count.
        offsets: of the window's tokens in the context, (0, 0) outside of it.
    """
    within = torch.tensor([last > first for first, last in offsets])
    if not bool(within.any()):
        return None
    starts, ends = scores[: len(offsets)].masked_fill(~within.unsqueeze(1), -torch.inf).unbind(1)
    sums = starts.unsqueeze(1) + ends.unsqueeze(0)
    band = torch.ones_like(sums, dtype=torch.bool).triu().tril(MAX_ANSWER - 1)
    place = int(sums.masked_fill(~band, -torch.inf).argmax())
    first, last = divmod(place, len(offsets))
    return float(sums[first, last]), offsets[first][0], offsets[last][1]


class BestSpans:
    """The best span of every row over its windows, as their scores come in."""

    def __init__(self, rows: SpanRows) -> None:
        self._rows = rows
        self._best: dict[int, tuple[float, str]] = {}
        self._empty: dict[int, float] = {}

    def take(self, windows: Sequence[int], logits: Tensor) -> None:
        """logits: (windows, tokens, 2)."""
        rows = self._rows
        for window, scores in zip(windows, logits, strict=True):
            row, found = rows.row_of[window], best_span(scores, rows.offsets[window])
            self._empty[row] = min(self._empty.get(row, float("inf")), float(scores[0].sum()))
            if found is not None and (row not in self._best or found[0] > self._best[row][0]):
                self._best[row] = (found[0], rows.contexts[row][found[1] : found[2]])

    def prediction(self, row: int, maybe_empty: bool) -> Prediction:
        """The row's best span; no answer where that scores higher and may be."""
        best, empty = self._best.get(row), self._empty[row]
        if best is None or (maybe_empty and empty > best[0]):
            return Prediction("", score=empty)
        return Prediction(best[1], score=best[0])


def _passes(attached: Attached, rows: Encoded, precision: str) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of windows with their logits, float32 (windows, tokens, 2)."""
    device = attached.device
    order = sorted(range(len(rows)), key=rows.lengths().__getitem__)
    attached.train(False)
    for start in range(0, len(order), EVAL_BATCH):
        part = order[start : start + EVAL_BATCH]
        with attached.active(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = attached.logits(rows.batch(part, device)).float()
        yield part, logits


def _references(rows: SpanRows) -> list[tuple[str, ...]]:
    return [tuple(text for text, _ in answers) for answers in rows.answers]
