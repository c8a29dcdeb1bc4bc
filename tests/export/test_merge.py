"""Merged weights in a live backbone stay for as long as they are wanted, whoever keeps the way back."""

from __future__ import annotations

import gc

import pytest
import torch

from peft_core.export.merge import merge, merged
from peft_core.records import InputError
from tests.conftest import batch_for, miniature
from tests.export.trips import as_trained
from tests.methods.family_checks import outputs, trained


def test_it_stays_merged_where_nobody_keeps_the_way_back():
    run = as_trained(trained(miniature("roberta"), "lora"), "lora")
    expected, batch = outputs(run.attached), batch_for(run.backbone)
    merge(run)
    gc.collect()
    with torch.no_grad():
        torch.testing.assert_close(run.backbone.logits(batch), expected, rtol=0, atol=1e-4)


def test_an_error_within_leaves_the_backbone_as_it_was():
    run = as_trained(trained(miniature("roberta"), "lora"), "lora")
    before = dict(run.backbone.model.named_parameters())
    with pytest.raises(ZeroDivisionError), merged(run):
        raise ZeroDivisionError
    assert all(value is before[name] for name, value in run.backbone.model.named_parameters())


def test_values_that_are_not_finite_are_refused_and_change_nothing():
    run = as_trained(trained(miniature("roberta"), "lora"), "lora")
    before = dict(run.backbone.model.named_parameters())
    with torch.no_grad():
        next(iter(run.attached.trainable().values()))[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        merge(run)
    assert all(value is before[name] for name, value in run.backbone.model.named_parameters())
