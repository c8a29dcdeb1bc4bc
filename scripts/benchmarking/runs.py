"""Models with random weights, and runs of the engine on made-up rows of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from peft_core.backbones import initial_head
from peft_core.backbones._backbone import TransformerBackbone
from peft_core.methods import get_method, resolve
from peft_core.records import ComparisonSpec, MethodSpec, RunSpec, TrainingConfig
from peft_core.tasks import TaskInfo
from peft_core.training.data import TaskData
from peft_core.training.loop import Run, train
from peft_core.training.problems import Encoded
from peft_core.training.schedule import Schedule

Step = Callable[[], Any]
BATCHES = 4
"""Different batches that a run's rows make up."""
LONG = 100_000
"""Steps of a run, more than any measurement takes."""
INFO = TaskInfo(
    id="made-up",
    title="made-up rows",
    description="",
    kind="classification",
    modality="text",
    metrics=("accuracy",),
    labels=("a", "b"),
    outputs=2,
    train_rows=1,
    eval_rows=1,
    max_train_rows=1,
    max_eval_rows=1,
)


def random_roberta(device: str = "cpu", **shape: int) -> TransformerBackbone:
    """A RoBERTa of this shape with random weights, the same at every call; the defaults are those of RoBERTa-base."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    from peft_core.backbones.roberta import FAMILY

    given: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1} | shape
    config = RobertaConfig(**given, num_labels=2, use_cache=False)
    return _backbone("roberta", FAMILY, RobertaForSequenceClassification, config, device)


def random_vit(device: str = "cpu", **shape: int) -> TransformerBackbone:
    """A ViT of this shape with random weights, the same at every call; the defaults are those of ViT-B/16."""
    from transformers import ViTConfig, ViTForImageClassification

    from peft_core.backbones.vit import FAMILY

    return _backbone("vit", FAMILY, ViTForImageClassification, ViTConfig(**shape, num_labels=2), device)


def _backbone(name: str, family: Any, kind: Any, config: Any, device: str) -> TransformerBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).to(device)
    described = f"{name}-{config.hidden_size}x{config.num_hidden_layers}-random"
    return TransformerBackbone(described, family, model, max_length=512, outputs=2)


def made_up_rows(backbone: TransformerBackbone, rows: int, tokens: int) -> Encoded:
    """`rows` rows of `tokens` random tokens, or random images of the backbone's size, with random labels."""
    generator = torch.Generator().manual_seed(rows)
    labels = torch.randint(2, (rows,), generator=generator)
    if backbone.modality == "image":
        side = backbone.config.image_size
        return Encoded(None, torch.randn(rows, 3, side, side, generator=generator), labels, {})
    words = torch.randint(10, min(500, backbone.config.vocab_size), (rows, tokens), generator=generator)
    return Encoded({"input_ids": words.tolist()}, None, labels, {"input_ids": 1})


def made_up_runs(
    backbone: TransformerBackbone, methods: Sequence[str], rows: int, tokens: int, **training: Any
) -> list[Run]:
    """Runs of one comparison on one backbone, a seed of its own for each, with batches of `rows` rows."""
    device = str(backbone.device.type)
    given = {"batch_size": rows, "steps": LONG, "eval_every": LONG, "learning_rate": 1e-3, "device": device}
    config = TrainingConfig(**given | training)
    specs = [MethodSpec.parse(method) for method in methods]
    comparison = ComparisonSpec(methods=(specs[0],), training=config)
    train_rows, few = made_up_rows(backbone, BATCHES * rows, tokens), made_up_rows(backbone, 2, tokens)
    data = (TaskData(replace(INFO, modality=backbone.modality), train_rows, few),)
    schedule = Schedule([train_rows.lengths()], rows, 0, config.temperature)
    runs = []
    for seed, spec in enumerate(specs):
        attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(seed))
        attached.train_head(initial_head(backbone, seed))
        run = RunSpec(run=f"bench-{seed}", comparison=comparison, method=spec, label=str(spec), seed=seed)
        runs.append(Run(run, resolve(spec), attached, data, schedule))
    return runs


def apart(runs: Sequence[Run]) -> Step:
    """One optimizer step of every run, one run after another."""
    streams = [_steps(run) for run in runs]

    def step() -> list[float]:
        return [next(stream) for stream in streams]

    return step


def _steps(run: Run) -> Iterator[float]:
    """The losses of a run's steps."""
    return (record.loss for record in train(run) if record.event == "step")


def in_lockstep(runs: Sequence[Run]) -> Step | None:
    """One optimizer step of every run, folded into one batch; None where the engine cannot fold yet."""
    try:
        from peft_core.training.lockstep import Together
    except ImportError:
        return None
    together, names = Together(runs), [run.spec.run for run in runs]

    def step() -> list[float]:
        records = together.step(names)
        for record in records.values():
            if isinstance(record, Exception):
                raise record
        return [records[name].loss for name in names]

    return step
