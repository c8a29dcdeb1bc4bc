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


ELSEWHERE = {
    "mistral": "always seen",
    "gpt2": "learned one by one",
    "bert": "learned one by one",
    "roberta": "learned one by one",
    "deberta_v2": "has none",
    "t5": "in the encoder too",
    "bart": "in the encoder too",
    "vit": "has none",
    "modernbert": "has none",
}


@pytest.mark.parametrize("family", ELSEWHERE)
def test_elsewhere_it_is_refused_with_the_reason_and_what_can_be_had(family):
    with pytest.raises(InputError, match=rf"prefix cannot be one: .*{ELSEWHERE[family]}; native can be had instead"):
        check_format(as_trained(noisy(family, "prefix"), "prefix"), "peft")


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "bert", "roberta"])
def test_there_it_matters_that_tokens_are_moved(family):
    backbone = miniature(family)
    batch = batch_for(backbone)
    first, moved = (torch.arange(start, start + batch["input_ids"].shape[1])[None] for start in (3, 6))
    here, there = (backbone.body(**batch, position_ids=at).last_hidden_state for at in (first, moved))
    assert (there - here).abs().max() > 1e-2
