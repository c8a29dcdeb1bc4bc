"""Everything that can be known to be wrong with a comparison before it starts, without weights and without data."""

from __future__ import annotations

from functools import lru_cache

import torch

from peft_core.backbones import meta_backbone, model_info
from peft_core.methods import get_method, resolve
from peft_core.records import Backbone, ComparisonSpec, InputError
from peft_core.tasks import get_task
from peft_core.training.data import row_counts


def check(spec: ComparisonSpec) -> None:
    """Refuses what cannot run.

    Raises:
        InputError: one sentence naming the field, the value and what is allowed.
    """
    model, task = model_info(spec.model), get_task(spec.task)
    if not model.available:
        raise InputError("model", spec.model, "its weights are not at hand; choose an embedded model or a folder")
    if task.info.modality not in (model.modality, "any"):
        raise InputError("task", spec.task, f"{spec.model} takes {model.modality} tasks")
    unknown = sorted(set(spec.task_options) - set(task.info.options))
    if unknown:
        allowed = ", ".join(task.info.options) or "none"
        raise InputError(f"task_options.{unknown[0]}", spec.task_options[unknown[0]], f"{spec.task} has {allowed}")
    row_counts(spec, task.info)
    limit, wanted = model.max_length, spec.training.max_length
    if wanted is not None and limit is not None and wanted > limit:
        raise InputError("training.max_length", wanted, f"{spec.model} reads at most {limit} tokens")
    if spec.training.device == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device", "cuda", "there is no CUDA device here; it must be auto or cpu")
    backbone = _shape_of(spec.model)
    for method in spec.methods:
        config = resolve(method)
        try:
            get_method(method.id).attach(backbone, config, torch.Generator().manual_seed(spec.seeds[0]))
        except InputError as error:
            raise InputError(f"{method.id}.{error.field}", error.value, error.allowed) from None


@lru_cache(maxsize=4)
def _shape_of(model: str) -> Backbone:
    return meta_backbone(model)
