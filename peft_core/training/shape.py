"""Methods attached to a model's shape on the meta device: what fits and what it counts, without weights."""

from __future__ import annotations

from functools import lru_cache

import torch

from peft_core.backbones import meta_backbone
from peft_core.methods import Attached, MethodConfig, get_method, resolve
from peft_core.records import Backbone, InputError, MethodSpec, Problem


@lru_cache(maxsize=8)
def shape_of(model: str, problem: Problem = "classification") -> Backbone:
    """A model's architecture without weights, with the head of a problem."""
    return meta_backbone(model, problem=problem)


def attach_shape(
    model: str, method: MethodSpec, seed: int = 0, tasks: int = 1, problem: Problem = "classification"
) -> tuple[Attached, MethodConfig]:
    """A method attached to a model's shape: everything is counted, nothing computed.

    Args:
        seed: draws the masks, where the method has no mask_seed of its own.
        tasks: how many are trained together.
        problem: what the model is asked for.

    Raises:
        InputError: unknown model or method, or options that do not fit the model; the field is ``<id>.<option>``.
    """
    config, backbone = resolve(method), shape_of(model, problem)
    try:
        attached = get_method(method.id).attach(backbone, config, torch.Generator().manual_seed(seed))
        if tasks > 1:
            attached.share_among(tasks)
    except InputError as error:
        raise of_method(method, config, error) from None
    return attached, config


def of_method(method: MethodSpec, config: MethodConfig, error: InputError) -> InputError:
    """The same complaint with the method named before its option."""
    known = error.field.partition(".")[0] in type(config).model_fields
    return InputError(f"{method.id}.{error.field}" if known else error.field, error.value, error.allowed)
