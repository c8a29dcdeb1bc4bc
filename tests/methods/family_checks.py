"""What `test_families` asks of a family: every method on it, three steps, stored, loaded, merged."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from peft_core.methods import list_methods
from peft_core.methods._contract import Attached
from peft_core.methods._surgery import weight_at
from peft_core.records import InputError
from tests.conftest import batch_for, has_place, miniature
from tests.methods.test_contract import attach, take_steps


def trained(backbone, method_id: str) -> Attached:
    attached = attach(backbone, method_id, seed=7)
    take_steps(attached, 12 if attached.counts_at_target else 3, rate=2e-2)  # what grows must have ended growing
    attached.train(False)
    return attached


@torch.no_grad()
def outputs(attached: Attached) -> torch.Tensor:
    with attached.active():
        return attached.backbone.logits(batch_for(attached.backbone))


@torch.no_grad()
def put(parameters: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    for name, parameter in parameters.items():
        model.get_parameter(name).copy_(parameter)


@torch.no_grad()
def merge(attached: Attached, model: nn.Module) -> None:
    """Adds what a run learned to the weights of a model without hooks."""
    put(attached.overrides, model)
    backbone = attached.backbone
    sites = {site.name: site for site in (*backbone.sites("all-linear"), *backbone.sites())}
    for update in () if attached.overrides else attached.updates():
        site = sites[update.site]
        weight_at(site, model.get_parameter(f"{site.module}.weight")).add_(update.left @ update.right)


def trains_and_is_stored(family: str) -> None:
    """Every method with a place leaves a fresh model as it says, trains, and answers the same from what is stored."""
    plain = outputs(attach(miniature(family), "lora", seed=7))
    for method in list_methods():
        if not has_place(method, family):
            with pytest.raises(InputError, match="method is"):
                attach(miniature(family), method.id)
            continue
        backbone = miniature(family)
        fresh, batch = attach(backbone, method.id), batch_for(backbone)
        with torch.no_grad():
            before = backbone.features(batch)
            with fresh.active():
                during = backbone.features(batch)
            assert torch.equal(before, during) == method.zero_init, method.id
            assert torch.equal(backbone.features(batch), before), method.id
        attached = trained(backbone, method.id)
        expected = outputs(attached)
        assert expected.isfinite().all() and not torch.equal(expected, plain), method.id
        again = attach(miniature(family), method.id, seed=7)
        again.load_stored(attached.stored(), attached.stored_head())
        again.train(False)
        assert torch.equal(outputs(again), expected), method.id


@torch.no_grad()
def lively(family: str):
    """A miniature whose matrices are so large that what its attention and its FFN do shows in the output."""
    backbone, generator = miniature(family), torch.Generator().manual_seed(3)
    for name in backbone.body_parameters():
        parameter = backbone.model.get_parameter(name)
        if parameter.dim() > 1:
            parameter.normal_(std=0.2, generator=generator)
    return backbone


def merged_weights_give_the_same_outputs(family: str) -> None:
    """The updates of every mergeable method, added to the weights, give what the method gave."""
    for method in list_methods():
        if not method.mergeable or not has_place(method, family):
            continue
        attached, merged = trained(lively(family), method.id), lively(family)
        expected = outputs(attached)
        put(attached.head, merged.model)
        with torch.no_grad():
            before = merged.logits(batch_for(merged))
            merge(attached, merged.model)
            after = merged.logits(batch_for(merged))
        assert (before - expected).abs().max() > 3e-3, f"{method.id} must make a difference"
        torch.testing.assert_close(
            after, expected, rtol=1e-4, atol=2e-5, msg=lambda text, name=method.id: f"{name}: {text}"
        )
