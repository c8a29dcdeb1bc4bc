"""A run before its first step: its method attached, its heads, and what a checkpoint says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peft_core.backbones import initial_head, label_tokens, meta_backbone
from peft_core.methods import Attached, get_method, resolve
from peft_core.records import RunSpec
from peft_core.tasks import TaskInfo
from peft_core.training.begun import Starts
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.data import TaskData
from peft_core.training.loop import Run
from peft_core.training.schedule import Schedule

if TYPE_CHECKING:
    from peft_core.backbones._backbone import TransformerBackbone


def new_run(
    spec: RunSpec,
    backbone: TransformerBackbone,
    data: Sequence[TaskData],
    schedule: Schedule,
    folder: Path | None = None,
    starts: Starts | None = None,
) -> Run:
    """A run at step 0. The backbone is as it was before, and so is the global generator.

    starts: where the values lie that runs may begin with.

    Raises:
        InputError: the method does not fit the backbone, or what it is to begin with cannot be had.
    """
    config = resolve(spec.method)
    attached = get_method(spec.method.id).attach(backbone, config, torch.Generator().manual_seed(spec.seed))
    add_heads(attached, spec.seed, backbone, [task.info for task in data])
    begun = starts.load(spec, attached, data) if starts is not None else None
    return Run(spec, config, attached, data, schedule, folder, begun)


def resumed(run: Run) -> list[str]:
    """Takes a run to its last whole checkpoint, where it has one; sentences on those that are damaged."""
    assert run.folder is not None
    checkpoint, said = latest_checkpoint(run.folder / "checkpoints")
    if checkpoint is not None:
        run.restore(checkpoint)
    return said


def add_heads(attached: Attached, seed: int, backbone: TransformerBackbone, infos: Sequence[TaskInfo]) -> None:
    """A head for every task, as wide as its answers; for a model without one, the tokens that stand for them."""
    if len(infos) > 1:
        attached.share_among(len(infos))
        if not backbone.head_parameters():
            attached.label_tokens = [label_tokens(backbone, info.problem, info.labels) for info in infos]
    for number, info in enumerate(infos):
        same = info.outputs == backbone.outputs
        shape = backbone if same else meta_backbone(backbone.id, info.outputs)
        attached.train_head(initial_head(shape, seed), number)
