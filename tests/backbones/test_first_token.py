"""The last layer for the token that the head reads: the same logits and gradients, and less computed."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import batch_for, miniature


def gradients(backbone, batch) -> list[torch.Tensor]:
    backbone.model.requires_grad_(True)
    backbone.logits(batch).square().sum().backward()
    found = [parameter.grad for parameter in backbone.model.parameters() if parameter.grad is not None]
    backbone.model.requires_grad_(False).zero_grad()
    return found


def flops(backbone, batch) -> int:
    with FlopCounterMode(display=False) as counter:
        backbone.logits(batch)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta_v2"])
def test_logits_and_gradients_are_those_of_all_tokens(family):
    one, all_of_them = miniature(family), miniature(family)
    all_of_them.compute_all_tokens()
    batch = batch_for(one)
    assert flops(one, batch) < flops(all_of_them, batch)
    torch.testing.assert_close(one.logits(batch), all_of_them.logits(batch), rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients(one, batch), gradients(all_of_them, batch), rtol=1e-4, atol=1e-5)
    assert one.body(**batch).last_hidden_state.shape[1] == 1


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_problem_that_reads_every_token_computes_every_token(family):
    backbone = miniature(family, problem="span")
    batch = batch_for(backbone)
    assert backbone.body(**batch).last_hidden_state.shape[1] == batch["input_ids"].shape[1]
