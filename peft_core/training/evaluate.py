"""Loss and scores on evaluation rows, and the rank of what was learned."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from peft_core.methods import Attached, WeightUpdate
from peft_core.metrics.rank import rank_of_factors, rank_of_matrix
from peft_core.metrics.scores import score
from peft_core.records import LayerRank
from peft_core.tasks._contract import TaskInfo
from peft_core.training.data import EVAL_BATCH, Encoded


def task_loss(logits: Tensor, labels: Tensor, info: TaskInfo) -> Tensor:
    """Mean over rows: cross-entropy for classes, mean squared error for numbers; computed in float32."""
    if info.labels is not None:
        return F.cross_entropy(logits.float(), labels)
    return F.mse_loss(logits.float(), labels)


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
            outputs.append(attached.backbone.logits(batch).float().cpu())
    return torch.cat(outputs)[torch.tensor(order).argsort()]


def evaluate(
    attached: Attached, rows: Encoded, info: TaskInfo, precision: str
) -> tuple[dict[str, float | None], float]:
    """Scores by metric name, and the mean loss."""
    outputs = predict(attached, rows, precision)
    loss = float(task_loss(outputs, rows.labels, info))
    return score(info.metrics, outputs, rows.labels), loss


@torch.no_grad()
def layer_ranks(attached: Attached) -> tuple[Literal["delta", "linear_map"], tuple[LayerRank, ...]]:
    """What kind of map was measured, and its rank at every adapted site. Never forms a factored Delta W."""
    attached.train(False)
    updates = attached.updates()
    return (updates[0].kind if updates else "delta"), tuple(_layer_rank(update) for update in updates)


def _layer_rank(update: WeightUpdate) -> LayerRank:
    if update.left is not None and update.right is not None:
        rank = rank_of_factors(update.left.detach(), update.right.detach())
    else:
        assert update.delta is not None
        rank = rank_of_matrix(update.delta.detach())
    return LayerRank(
        site=update.site,
        layer=update.layer,
        role=update.role,
        numerical=rank.numerical,
        effective=rank.effective,
        stable=rank.stable,
        norm=rank.norm,
        bound=update.bound,
    )


def summarize_ranks(layers: tuple[LayerRank, ...]) -> dict[str, float | None] | None:
    """The `rank` entry of results.json."""
    if not layers:
        return None
    count = len(layers)
    return {
        "numerical_mean": sum(layer.numerical for layer in layers) / count,
        "numerical_max": max(layer.numerical for layer in layers),
        "effective_mean": sum(layer.effective for layer in layers) / count,
        "stable_mean": sum(layer.stable for layer in layers) / count,
        "bound": max(layer.bound for layer in layers),
    }
