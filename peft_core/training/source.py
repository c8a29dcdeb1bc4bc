"""A comparison's weights: fetched with a progress that people see, at the commit that the comparison began with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_core.backbones import ModelSource, fetch_model
from peft_core.training.checkpoint import write_atomically

RECORD = "model.json"


def fetch_weights(model_id: str, folder: Path, notice: Callable[[dict[str, Any]], None]) -> ModelSource:
    """The comparison's model with its weights on this disk.

    Args:
        folder: the comparison's own, where the commit of a Hub model is recorded; one recorded there is used again,
            so that a resumed run goes on with the weights that it began with.
        notice: gets the progress of a download as `message`.

    Raises:
        InputError: the model cannot be had.
    """
    told = False

    def tell(_: float, sentence: str) -> None:
        nonlocal told
        told = True
        notice({"message": sentence})

    source = fetch_model(model_id, _recorded(folder / RECORD), tell)
    if source.commit is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECORD, json.dumps(source.described()).encode())
    if told or source.said:
        notice({"message": source.said})
    return source


def _recorded(file: Path) -> str | None:
    try:
        commit = json.loads(file.read_text(encoding="utf-8")).get("commit")
    except (OSError, ValueError, AttributeError):
        return None
    return commit if isinstance(commit, str) else None
