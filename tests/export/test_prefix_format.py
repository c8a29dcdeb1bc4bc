"""A prefix in the format of PEFT: on which decoders it computes the same, and where it is refused."""

from __future__ import annotations

import copy

import peft
import pytest
import torch

from peft_core.export.writing import check_format, save_format
from peft_core.records import InputError
from tests.conftest import batch_for, miniature
from tests.export.trips import as_trained
from tests.methods.test_contract import attach


@torch.no_grad()
def noisy(family, method, problem="classification"):
    """A miniature whose prefix and head are large enough to show."""
    attached = attach(miniature(family, problem=problem), method)
    generator = torch.Generator().manual_seed(2)
    for parameter in attached.trainable().values():
        parameter.normal_(0, 0.5, generator=generator)
    attached.train(False)
    return attached


@torch.no_grad()
@pytest.mark.parametrize("problem", ["classification", "generation"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma"])
def test_peft_answers_with_our_prefix_what_we_answer(family, problem, tmp_path):
    attached = noisy(family, "capaboost_prefix", problem)
    backbone, batch = attached.backbone, batch_for(attached.backbone)
    base, plain = copy.deepcopy(backbone.model), backbone.logits(batch)
    save_format(as_trained(attached, "capaboost_prefix"), "peft", tmp_path)
    with attached.active():
        expected = attached.logits(batch)
    found = peft.PeftModel.from_pretrained(base, tmp_path).eval()(**batch).logits
    rows = batch["attention_mask"].bool() if problem == "generation" else slice(None)
    torch.testing.assert_close(found[rows], expected[rows], rtol=1e-5, atol=1e-5)
    assert (expected[rows] - plain[rows]).abs().max() > 0.05


@pytest.mark.parametrize("family", ["mistral", "gpt2", "bert", "t5", "bart", "vit", "modernbert"])
def test_elsewhere_it_is_refused_with_what_can_be_had(family):
    with pytest.raises(InputError, match="native can be had instead"):
        check_format(as_trained(noisy(family, "prefix"), "prefix"), "peft")
