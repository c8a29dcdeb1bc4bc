"""Gradient checkpointing changes no gradient; what a comparison needs is known before its first step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.methods import list_methods
from peft_core.records import InputError
from peft_core.training import memory
from peft_core.training.loop import train
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import OPTIONS, attach, loss_of
from tests.training.test_loop import curve, make_run


def options_of(method: str) -> str:
    given = ",".join(f"{name}={value}" for name, value in OPTIONS.get(method, {}).items())
    return f"{method}:{given}" if given else method


@pytest.mark.parametrize("method", [method.id for method in list_methods()])
def test_computing_again_changes_nothing(method):
    steps = [
        curve(train(make_run(options_of(method), steps=16, eval_every=16, gradient_checkpointing=again)))
        for again in (False, True)
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("family", ["t5", "gpt2", "deberta_v2", "vit"])
def test_computing_again_gives_every_family_its_gradients(family):
    plain, again = (attach(miniature(family), "capaboost_pfeiffer") for _ in range(2))
    loss_of(plain).backward()
    with again.active(), again.backbone.checkpointed(memory.no_state):
        F.cross_entropy(again.logits(batch_for(again.backbone)), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    for name, parameter in plain.trainable().items():
        assert torch.equal(parameter.grad, again.trainable()[name].grad), name


def test_layers_keep_their_inputs_only():
    attached = attach(miniature("roberta"), "lora")
    batch = batch_for(attached.backbone)
    whole = memory.kept_bytes(attached, batch)
    with attached.backbone.checkpointed(memory.no_state):
        assert memory.kept_bytes(attached, batch) < whole / 4
    assert memory.kept_bytes(attached, batch) == whole, "layers are as they were"


def test_the_estimate_is_what_autograd_keeps():
    run = make_run("lora:rank=4")
    fixed, each = memory.row_bytes(run)
    rows = run.data[0].train
    widest = max(range(len(rows)), key=rows.lengths().__getitem__)
    kept = memory.kept_bytes(run.attached, rows.batch([widest] * 8, run.attached.device))
    assert kept <= fixed + 8 * each == pytest.approx(kept, rel=0.04), "what merges keeps nothing between the factors"
    trained = sum(value.numel() for value in run.attached.trainable().values())
    assert memory.state_bytes([run]) == 3 * 4 * trained


def test_measuring_leaves_the_run_as_it_was():
    measured = make_run("adamix:bottleneck=4")
    memory.row_bytes(measured)
    assert curve(train(measured)) == curve(train(make_run("adamix:bottleneck=4")))


def test_a_comparison_that_does_not_fit_is_refused_with_one_that_does(monkeypatch):
    run = make_run("lora:rank=4", batch_size=64)
    fixed, each = memory.row_bytes(run)
    states = memory.state_bytes([run])
    monkeypatch.setattr(memory, "available_bytes", lambda device: states + fixed + 20 * each)
    with pytest.raises(InputError, match=r"batch_size is 64; .* 20 would fit, or accumulation=4 with this one\."):
        memory.require_memory([run], run.training)
    monkeypatch.setattr(memory, "available_bytes", lambda device: states + fixed + 64 * each)
    assert memory.require_memory([run], run.training)["activations"] == fixed + 64 * each
    monkeypatch.setattr(memory, "available_bytes", lambda device: states)
    with pytest.raises(InputError, match="not even one row fits"):
        memory.require_memory([run], run.training)


def test_what_nobody_knows_is_not_nothing(monkeypatch):
    run = make_run("lora:rank=4")
    monkeypatch.setattr(memory, "available_bytes", lambda device: None)
    assert memory.require_memory([run], run.training)["available"] is None


def test_this_machine_says_what_is_free():
    free = memory.available_bytes(torch.device("cpu"))
    assert free is not None and 2**20 < free < 2**50
