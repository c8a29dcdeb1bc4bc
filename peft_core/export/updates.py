"""The weight updates of a finished run, map by map."""

from __future__ import annotations

import torch
from torch import Tensor

from peft_core.export.finished import FinishedRun
from peft_core.export.recipe import rebuild
from peft_core.records import InputError


@torch.no_grad()
def updates_of_run(finished: FinishedRun) -> dict[str, Tensor]:
    """ΔW (out, in) by the name of its map, in the order of the layers.

    Raises:
        InputError: its method learns no update of weights, or weights or values cannot be had or are others.
    """
    recipe = finished.recipe()
    trained = rebuild(recipe, finished.folder, recipe.tasks[0].id)
    found = {}
    for update in trained.attached.updates():
        if update.kind != "delta":
            continue
        if update.delta is not None:
            found[update.site] = update.delta.detach()
        elif update.left is not None and update.right is not None:
            found[update.site] = update.left.detach() @ update.right.detach()
    if not found:
        raise InputError("id", finished.row.run, f"{recipe.method} learns no update of weights")
    return found
