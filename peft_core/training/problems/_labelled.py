"""Classes and numbers: one answer of the head for every row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.methods import Attached
from peft_core.metrics.scores import baseline, outcomes, score
from peft_core.records import Backbone, TrainingConfig
from peft_core.tasks import Rows, TaskInfo
from peft_core.training.problems._contract import EVAL_BATCH, Encoded, Evaluation


class Labelled:
    """Cross-entropy over classes, or mean squared error over numbers."""

    def __init__(self, classes: bool) -> None:
        self.classes = classes

    def encode(self, rows: Rows, info: TaskInfo, backbone: Backbone, training: TrainingConfig) -> Encoded:
        labels = self._labels(rows.labels, info, len(rows))
        if backbone.modality == "image":
            return Encoded(None, backbone.processor(rows.columns["image"]), labels, {})
        texts = [list(rows.columns[name]) for name in ("text", "text2") if name in rows.columns]
        limit = training.max_length or backbone.max_length
        fields = backbone.processor(*texts, truncation=True, max_length=limit, return_attention_mask=False)
        tokens = {name: list(fields[name]) for name in ("input_ids", "token_type_ids") if name in fields}
        return Encoded(tokens, None, labels, {"input_ids": backbone.processor.pad_token_id or 0, "token_type_ids": 0})

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
        targets = train.labels
        assert isinstance(targets, Tensor)
        mean, deviation = targets.mean(0), targets.std(0).clamp_min(1e-6)

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
