"""A model's tokenizer or image processor by itself."""

from __future__ import annotations

from typing import Any

from peft_core.backbones._catalog import family_for, local_folder, paper_model, read_config
from peft_core.backbones._hub_cache import cached_model
from peft_core.backbones._hub_ids import HubId, hub_id
from peft_core.records import InputError


def load_processor(model_id: str) -> Any:
    """The tokenizer or image processor of a model on this disk; asks no network, reads no weights.

    Raises:
        InputError: the model is not at hand, or its files cannot be read.
    """
    from peft_core.backbones._loading import _load_processor

    paper = paper_model(model_id)
    folder = None if paper is not None else local_folder(model_id)
    if folder is None:
        folder = cached_model(HubId(paper.repository) if paper is not None else hub_id(model_id))
    if folder is None:
        raise InputError("model", model_id, "its tokenizer is not at hand, so token lengths are not known yet")
    return _load_processor(folder, family_for(model_id, read_config(folder)), model_id)
