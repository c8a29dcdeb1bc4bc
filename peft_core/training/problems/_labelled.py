"""Classes and numbers: one answer of the head for every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.methods import Attached
from peft_core.metrics.scores import baseline, outcomes, score
from peft_core.records import Backbone, TrainingConfig
from peft_core.tasks import Rows, TaskInfo
from peft_core.training.problems._contract import EVAL_BATCH, Encoded, Evaluation, Prediction
from peft_core.training.reading import Reading


class Labelled:
    """Cross-entropy over classes, or mean squared error over numbers."""

    def __init__(self, classes: bool) -> None:
        self.classes = classes

    def encode(self, rows: Rows, info: TaskInfo, backbone: Backbone, training: TrainingConfig) -> Encoded:
        return _inputs(rows, backbone, training.max_length, self._labels(rows.labels, info, len(rows)))

    def learned(self, train: Encoded, training: TrainingConfig) -> dict[str, Any]:
        if self.classes:
            return {}
        mean, deviation = _spread(train)
        known = bool(torch.isfinite(deviation).all())
        return {"mean": tuple(mean.tolist()), "deviation": tuple(deviation.tolist())} if known else {}

    def asked(self, rows: Rows, backbone: Backbone, reading: Reading) -> Encoded:
        return _inputs(rows, backbone, reading.max_length, torch.zeros(len(rows)))

    def answers(
        self, attached: Attached, asked: Encoded, labels: Sequence[str] | None, reading: Reading
    ) -> list[Prediction]:
        outputs = predict(attached, asked)
        if self.classes:
            return [_class(shares, labels) for shares in outputs.softmax(dim=1).tolist()]
        if reading.mean is not None and reading.deviation is not None:
            outputs = outputs * torch.tensor(reading.deviation) + torch.tensor(reading.mean)
        standardised = reading.mean is None or reading.deviation is None
        numbers = (row[0] if len(row) == 1 else tuple(row) for row in outputs.tolist())
        return [Prediction(number, standardised=standardised) for number in numbers]

    def _labels(self, labels: np.ndarray | None, info: TaskInfo, count: int) -> Tensor:
        if labels is None:
            return torch.zeros(count, info.outputs)
        if self.classes:
            return torch.from_numpy(np.asarray(labels, dtype=np.int64))
        return torch.from_numpy(np.asarray(labels, dtype=np.float32)).reshape(count, info.outputs)

    def settle(self, train: Encoded, evaluation: Encoded) -> tuple[Encoded, Encoded]:
        """Numbers with mean 0 and deviation 1 over the training rows: a loss of 1 is that of a constant answer.

        Correlations and explained variance are the same on either scale; on the raw one a small model spends its first
        steps on the mean and saturates its head.
        """
        if self.classes:
            return train, evaluation
        mean, deviation = _spread(train)

        def scaled(rows: Encoded) -> Encoded:
            assert isinstance(rows.labels, Tensor)
            return replace(rows, labels=((rows.labels - mean) / deviation).clone())

        return scaled(train), scaled(evaluation)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.classes:
            return F.cross_entropy(logits.float(), labels)
        return F.mse_loss(logits.float(), labels)

    def outputs(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits

    def evaluate(self, attached: Attached, rows: Encoded, info: TaskInfo, training: TrainingConfig) -> Evaluation:
        assert isinstance(rows.labels, Tensor)
        outputs = predict(attached, rows, training.precision)
        found = outcomes(info.metrics[0], outputs, rows.labels)
        loss = float(self.loss(outputs, rows.labels))
        return Evaluation(score(info.metrics, outputs, rows.labels), loss, (found,) if found else None)

    def baseline(self, info: TaskInfo, train: Encoded, evaluation: Encoded) -> float | None:
        assert isinstance(train.labels, Tensor)
        assert isinstance(evaluation.labels, Tensor)
        return baseline(info.metrics[:1], train.labels, evaluation.labels)[info.metrics[0]]


def _inputs(rows: Rows, backbone: Backbone, max_length: int | None, labels: Tensor) -> Encoded:
    if backbone.modality == "image":
        return Encoded(None, backbone.processor(rows.columns["image"]), labels, {})
    texts = [list(rows.columns[name]) for name in ("text", "text2") if name in rows.columns]
    limit = max_length or backbone.max_length
    fields = backbone.processor(*texts, truncation=True, max_length=limit, return_attention_mask=False)
    tokens = {name: list(fields[name]) for name in ("input_ids", "token_type_ids") if name in fields}
    return Encoded(tokens, None, labels, {"input_ids": backbone.processor.pad_token_id or 0, "token_type_ids": 0})


def _spread(train: Encoded) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the targets, (outputs,)."""
    targets = train.labels
    assert isinstance(targets, Tensor)
    return targets.mean(0), targets.std(0).clamp_min(1e-6)


def _class(shares: Sequence[float], labels: Sequence[str] | None) -> Prediction:
    names = labels if labels is not None else [str(number) for number in range(len(shares))]
    confidence = dict(zip(names, shares, strict=True))
    return Prediction(max(confidence, key=confidence.__getitem__), confidence)


@torch.inference_mode()
def predict(attached: Attached, rows: Encoded, precision: str = "fp32") -> Tensor:
    """Head outputs for all rows in their order, float32 (rows, outputs) on the CPU."""
    device = attached.device
    order = sorted(range(len(rows)), key=rows.lengths().__getitem__)
    outputs: list[Tensor] = []
    attached.train(False)
    with attached.active(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(order), EVAL_BATCH):
            batch = rows.batch(order[start : start + EVAL_BATCH], device)
            outputs.append(attached.logits(batch).float().cpu())
    return torch.cat(outputs)[torch.tensor(order).argsort()]
