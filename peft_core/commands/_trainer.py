"""What people would use instead of a comparison: Hugging Face's Trainer with PEFT, one run after another."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peft_core.backbones import load_backbone
from peft_core.metrics.scores import score
from peft_core.records import Backbone, ComparisonSpec, InputError, RunSpec, run_specs
from peft_core.training.data import TaskData, load_data
from peft_core.training.problems import Encoded


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded rows, as the Trainer reads them; its collator pads them."""

    def __init__(self, rows: Encoded) -> None:
        assert rows.tokens is not None
        assert isinstance(rows.labels, Tensor)
        self._tokens, self._labels = rows.tokens, rows.labels.tolist()

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._tokens.items()} | {"labels": self._labels[index]}


class Peer:
    """The runs of a comparison, trained by the Trainer: the same rows, batch size, steps and learning rate; its other
    settings are at their defaults, and it stores and reports nothing. Scored at the end.

    Args:
        configs: PEFT's config of each method, by label.
    """

    def __init__(self, spec: ComparisonSpec, configs: Mapping[str, Any]) -> None:
        self._spec, self._configs = spec, configs
        self._task = load_data(spec, self._backbone())[0]

    def score(self) -> float:
        """Trains all runs, each on a model that is loaded anew; the mean of their scores."""
        scores = [self._trained(run, self._task) for run in run_specs("peer", self._spec)]
        return sum(scores) / len(scores)

    def _backbone(self) -> Backbone:
        backbone = load_backbone(self._spec.model, outputs=2, problem="classification")
        backbone.compute_all_tokens()
        return backbone

    def _trained(self, run: RunSpec, task: TaskData) -> float:
        from peft import get_peft_model
        from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

        training, backbone = self._spec.training, self._backbone()
        assert training.learning_rate is not None
        torch.manual_seed(run.seed)
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                output_dir=folder,
                max_steps=training.total_steps(len(task.train)),
                per_device_train_batch_size=training.batch_size,
                learning_rate=training.learning_rate,
                seed=run.seed,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            )
            trainer = Trainer(
                model=get_peft_model(backbone.model, self._configs[run.label]),  # type: ignore[arg-type]
                args=settings,
                train_dataset=Rows(task.train),
                data_collator=DataCollatorWithPadding(backbone.processor),
            )
            trainer.remove_callback(PrinterCallback)  # standard output is for the figures
            trainer.train()
            outputs = torch.as_tensor(trainer.predict(Rows(task.evaluation)).predictions)
        labels = task.evaluation.labels
        assert isinstance(labels, Tensor)
        return float(score(task.info.metrics[:1], outputs, labels)[task.info.metrics[0]] or 0.0)


def require_peft() -> None:
    """Raises `InputError` where the peer is not installed."""
    try:
        import accelerate  # noqa: F401
        import peft  # noqa: F401
    except ImportError:
        raise InputError("against", "peft", "it must be installed first (requirements-dev.txt)") from None
