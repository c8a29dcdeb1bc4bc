"""Merged: the backbone with W + dW in place of W. No module is left beside it, and it loads as a plain folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peft_core.backbones._loading import quiet
from peft_core.export.peft_format import finite, sites_by_name
from peft_core.export.recipe import Trained
from peft_core.methods import get_method
from peft_core.methods._surgery import parameter_owners, weight_at
from peft_core.records import InputError


def check_merged(trained: Trained) -> None:
    """Refuses methods whose modules do more than a weight can: InputError."""
    method, attached = get_method(trained.recipe.method), trained.attached
    if attached.positions.left_out:
        raise InputError("format", "merged", f"{method.id} left the relative positions out, so it does not merge")
    if attached.modules and not method.mergeable:
        raise InputError("format", "merged", f"{method.id} adds modules that are no weight update; native can be had")


@torch.no_grad()
def merged_parameters(trained: Trained) -> dict[str, nn.Parameter]:
    """By name every parameter of the model that differs from the frozen ones: W + dW, own copies, the head.

    Sums are taken in float64 and rounded once.

    Raises:
        InputError: the method does not merge, or a value is not finite.
    """
    check_merged(trained)
    attached, sites = trained.attached, sites_by_name(trained)
    found: dict[str, Tensor] = {**attached.overrides, **attached.head}
    sums: dict[str, Tensor] = {}
    for update in attached.updates():
        site = sites[update.site]
        name = f"{site.module}.weight"
        if update.kind != "delta" or name in attached.overrides:
            continue
        if name not in sums:
            sums[name] = trained.backbone.model.get_parameter(name).detach().to(torch.float64, copy=True)
        if update.left is not None and update.right is not None:
            weight_at(site, sums[name]).add_(update.left.double() @ update.right.double())
    for name, total in sums.items():
        found[name] = total.to(trained.backbone.model.get_parameter(name).dtype)
    finite(found, trained)
    return {name: nn.Parameter(value.detach(), requires_grad=False) for name, value in found.items()}


def merge(trained: Trained) -> Callable[[], None]:
    """Puts W + dW and the head into the live backbone, which computes with them, and without hooks, from then on.

    Returns:
        The function that takes them out again: then the backbone is what it was, bit for bit, for the frozen parameters
        themselves stand there again.

    Raises:
        InputError: the method does not merge, or a value is not finite.
    """
    owners, undo = parameter_owners(trained.backbone.model), ExitStack()
    for name, parameter in merged_parameters(trained).items():
        for module, role in owners[name]:
            undo.callback(module._parameters.__setitem__, role, module._parameters[role])
            module._parameters[role] = parameter
    return undo.close


@contextmanager
def merged(trained: Trained) -> Iterator[nn.Module]:
    """`merge` for as long as the block lasts.

    Raises:
        InputError: the method does not merge, or a value is not finite.
    """
    unmerge = merge(trained)
    try:
        yield trained.backbone.model
    finally:
        unmerge()


def save_merged(trained: Trained, folder: Path) -> None:
    """Writes a transformers folder: safetensors, config with the labels, tokenizer or image processor.

    Raises:
        InputError: the method does not merge, or a value is not finite.
    """
    with merged(trained) as model, _configured(trained), quiet():
        model.save_pretrained(folder)  # type: ignore[operator]
    trained.backbone.processor.save_pretrained(folder)


@contextmanager
def _configured(trained: Trained) -> Iterator[None]:
    """Within it the model's config is the one to publish: labels by name, and caching as the model's files have it."""
    model: Any = trained.backbone.model
    before, config = model.config, copy.deepcopy(model.config)
    facts = trained.facts
    if facts.labels is not None and facts.problem == "classification" and trained.backbone.head:
        config.id2label = dict(enumerate(facts.labels))
        config.label2id = {label: number for number, label in enumerate(facts.labels)}
    config.use_cache = getattr(type(config)(), "use_cache", before.use_cache)
    model.config = config
    try:
        yield
    finally:
        model.config = before
