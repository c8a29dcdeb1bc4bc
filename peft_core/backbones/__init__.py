"""Backbones: what the engine knows of an architecture, and loading. Importing this loads no torch."""

from peft_core.backbones._catalog import ModelInfo, list_models, model_info
from peft_core.backbones._hub_cache import local_only
from peft_core.backbones._loading import initial_head, label_tokens, load_backbone, load_head, meta_backbone
from peft_core.backbones._processors import load_processor
from peft_core.backbones._sources import ModelSource, check_model, fetch_model

__all__ = [
    "ModelInfo",
    "ModelSource",
    "check_model",
    "fetch_model",
    "initial_head",
    "label_tokens",
    "list_models",
    "load_backbone",
    "load_head",
    "load_processor",
    "local_only",
    "meta_backbone",
    "model_info",
]
