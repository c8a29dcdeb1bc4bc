"""Rows to batches: encoded once, padded as far as a batch needs, in an order that all runs of a comparison share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peft_core.records import Backbone, ComparisonSpec, InputError
from peft_core.tasks import get_task
from peft_core.tasks._contract import Rows, Task, TaskInfo

BUCKET_BATCHES = 50
"""Batches whose rows are sorted by length together."""
EVAL_BATCH = 64


@dataclass(frozen=True)
class Encoded:
    """Rows as a model takes them.

    tokens: one list of fields per row (``input_ids`` and, where the tokenizer gives them, ``token_type_ids``), or None.
    images: float32 (rows, channels, height, width), or None. labels: int64 (rows,) or float32 (rows, outputs).
    """

    tokens: Mapping[str, list[list[int]]] | None
    images: Tensor | None
    labels: Tensor
    pad: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.images) if self.images is not None else len(self.tokens["input_ids"])  # type: ignore[index]

    def lengths(self) -> list[int]:
        """Tokens in each row; equal for images."""
        return [len(row) for row in self.tokens["input_ids"]] if self.tokens else [1] * len(self)

    def batch(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Model inputs for these rows, padded to the longest of them, on the device."""
        if self.images is not None:
            return {"pixel_values": self.images[list(rows)].to(device)}
        assert self.tokens is not None
        width = max(len(self.tokens["input_ids"][row]) for row in rows)
        batch = {
            name: torch.tensor([values[row] + [self.pad[name]] * (width - len(values[row])) for row in rows])
            for name, values in self.tokens.items()
        }
        lengths = torch.tensor([len(self.tokens["input_ids"][row]) for row in rows])
        batch["attention_mask"] = (torch.arange(width) < lengths.unsqueeze(1)).long()
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def labels_of(self, rows: Sequence[int], device: torch.device) -> Tensor:
        return self.labels[list(rows)].to(device)


@dataclass(frozen=True)
class TaskData:
    """Encoded training and evaluation rows of a comparison."""

    info: TaskInfo
    train: Encoded
    evaluation: Encoded


def row_counts(spec: ComparisonSpec, info: TaskInfo) -> tuple[int, int]:
    """Training and evaluation rows that a spec asks for.

    Raises:
        InputError: more than the task has, or fewer training rows than one batch.
    """
    train = spec.train_rows if spec.train_rows is not None else info.train_rows
    evaluation = spec.eval_rows if spec.eval_rows is not None else info.eval_rows
    if train > info.max_train_rows:
        raise InputError("train_rows", train, f"{info.id} has {info.max_train_rows} training rows")
    if evaluation > info.max_eval_rows:
        raise InputError("eval_rows", evaluation, f"{info.id} has {info.max_eval_rows} evaluation rows")
    if spec.training.batch_size > train:
        raise InputError("training.batch_size", spec.training.batch_size, f"it must be at most train_rows ({train})")
    return train, evaluation


def load_data(spec: ComparisonSpec, backbone: Backbone) -> TaskData:
    """Generates or reads the rows of a comparison and encodes them for its backbone."""
    task = get_task(spec.task)
    train_rows, eval_rows = row_counts(spec, task.info)
    train = task.rows("train", train_rows, spec.data_seed, spec.task_options)
    evaluation = task.rows("eval", eval_rows, spec.data_seed, spec.task_options)
    parts = [_encode(rows, task.info, backbone, spec) for rows in (train, evaluation)]
    if task.teacher is not None:
        parts = _taught(task, spec, backbone, parts)
    if task.info.labels is None:
        parts = _standardised(parts)
    return TaskData(task.info, *parts)


def _encode(rows: Rows, info: TaskInfo, backbone: Backbone, spec: ComparisonSpec) -> Encoded:
    labels = _labels(rows.labels, info, len(rows))
    if backbone.modality == "image":
        return Encoded(None, backbone.processor(rows.columns["image"]), labels, {})
    texts = [list(rows.columns[name]) for name in ("text", "text2") if name in rows.columns]
    limit = spec.training.max_length or backbone.max_length
    fields = backbone.processor(*texts, truncation=True, max_length=limit, return_attention_mask=False)
    tokens = {name: list(fields[name]) for name in ("input_ids", "token_type_ids") if name in fields}
    return Encoded(tokens, None, labels, {"input_ids": backbone.processor.pad_token_id or 0, "token_type_ids": 0})


def _labels(labels: np.ndarray | None, info: TaskInfo, count: int) -> Tensor:
    if labels is None:
        return torch.zeros(count, info.outputs)
    if info.labels is not None:
        return torch.from_numpy(np.asarray(labels, dtype=np.int64))
    return torch.from_numpy(np.asarray(labels, dtype=np.float32)).reshape(count, info.outputs)


def _taught(task: Task, spec: ComparisonSpec, backbone: Backbone, parts: list[Encoded]) -> list[Encoded]:
    """The rows with targets computed by the task's teacher from the backbone itself."""
    assert task.teacher is not None
    with torch.inference_mode(), task.teacher(backbone, spec.data_seed, spec.task_options) as targets:
        return [replace(part, labels=torch.cat(list(_targets(part, backbone, targets)))) for part in parts]


def _standardised(parts: list[Encoded]) -> list[Encoded]:
    """Targets with mean 0 and deviation 1 over the training rows: a loss of 1 is that of a constant answer.

    Correlations and explained variance are the same on either scale; on the raw one a small model spends its first
    steps on the mean and saturates its head.
    """
    labels = parts[0].labels
    mean, deviation = labels.mean(0), labels.std(0).clamp_min(1e-6)
    return [replace(part, labels=((part.labels - mean) / deviation).clone()) for part in parts]


def _targets(part: Encoded, backbone: Backbone, targets: Any) -> Iterator[Tensor]:
    device = next(backbone.model.parameters()).device
    for start in range(0, len(part), EVAL_BATCH):
        rows = range(start, min(start + EVAL_BATCH, len(part)))
        yield targets(backbone.features(part.batch(rows, device))).float().cpu()


class BatchOrder:
    """Which rows make up the batch of a step: a function of (data seed, step), the same for every run.

    Rows are permuted each epoch, sorted by length within buckets of 50 batches so that little is padded, cut into
    batches, and the batches permuted. The last batch of an epoch may be smaller.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size, self._seed = batch_size, seed
        self.batches_per_epoch = -(-len(lengths) // batch_size)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def rows(self, step: int) -> list[int]:
        """Row numbers of the batch of a step, counted from 0."""
        epoch, index = divmod(step, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self._lengths), generator=generator)
        batches: list[list[int]] = []
        for bucket in order.split(self._batch_size * BUCKET_BATCHES):
            by_length = bucket[self._lengths[bucket].argsort(stable=True)]
            batches += [part.tolist() for part in by_length.split(self._batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
