"""What people would use instead: Hugging Face PEFT's LoRA in a plain loop, and with the Hugging Face Trainer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.backbones._backbone import TransformerBackbone
from peft_core.training.problems import Encoded
from scripts.benchmarking.runs import Step
from scripts.benchmarking.timing import wait

RATE, DECAY = 1e-3, 0.01


def autocast(device: str) -> Any:
    """bf16 as `TrainingConfig.precision` means it: autocast over float32 weights."""
    return torch.autocast(device, torch.bfloat16)


def peft_model(backbone: TransformerBackbone, rank: int) -> Any:
    """The backbone's own model with PEFT's LoRA on query and value, and a head that trains."""
    from peft import LoraConfig, get_peft_model

    backbone.compute_all_tokens()
    targets = sorted({site.module for site in backbone.sites("qv")})
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, modules_to_save=["classifier"])
    return get_peft_model(backbone.model, config)  # type: ignore[arg-type]


def peft_step(make: Callable[[], TransformerBackbone], rank: int, rows: Encoded, size: int) -> Step:
    """One step in bf16: forward, backward, fused AdamW. rows: at least `size`, the first of which are the batch."""
    backbone = make()
    device = backbone.device
    batch, labels = rows.batch(range(size), device), rows.labels_of(range(size), device)
    model = peft_model(backbone, rank).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY, fused=True)

    def step() -> None:
        with autocast(device.type):
            loss = F.cross_entropy(model(**batch).logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


class _Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Encoded rows, as the Trainer reads them."""

    def __init__(self, rows: Encoded, count: int) -> None:
        self._batch, self._labels = rows.batch(range(len(rows)), torch.device("cpu")), rows.labels
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = index % len(self._labels)
        return {name: values[row] for name, values in self._batch.items()} | {"labels": self._labels[row]}


def trainer_steps_per_second(
    make: Callable[[], TransformerBackbone], rank: int, rows: Encoded, size: int, steps: int, warmup: int
) -> float:
    """Steps a second of one PEFT LoRA run under the Trainer in bf16, its settings else at their defaults.

    Nothing is reported, stored or evaluated. The first `warmup` steps are left out.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        times: list[float] = []  # noqa: RUF012

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step in (warmup, steps):
                wait()
                self.times.append(time.perf_counter())

    backbone, clock = make(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=size,
            bf16=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=backbone.device.type == "cpu",
        )
        Trainer(
            model=peft_model(backbone, rank),
            args=settings,
            train_dataset=_Rows(rows, steps * size),
            callbacks=[clock],
        ).train()
    return (steps - warmup) / (clock.times[1] - clock.times[0])
