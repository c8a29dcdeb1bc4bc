"""The optimizer over flat tensors does what torch's AdamW does, whatever a method does with its parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peft_core.methods import list_methods
from peft_core.training import optimizer as ours
from peft_core.training._adamw import SMALL
from peft_core.training.loop import Run, train
from peft_core.training.optimizer import make_optimizer, optimizer_tensors, split_groups, step_all
from tests.training.test_loop import curve, make_run
from tests.training.test_memory import options_of


class Reference(torch.optim.AdamW):
    """torch's own, with what a run asks of ours."""

    def __init__(self, groups, grows=False):
        super().__init__(groups, lr=0.0)

    def retain(self, parameters):
        kept = {id(parameter) for parameter in parameters}
        for group in self.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in kept]

    def clip(self, parameters, limit):
        return float(nn.utils.clip_grad_norm_([*parameters], limit))


@pytest.mark.parametrize("method", [options_of(method.id) for method in list_methods()])
def test_twenty_steps_of_every_method_are_those_of_torchs_adamw(method, monkeypatch):
    found = [record for record in train(make_run(method)) if record.event == "step"]
    monkeypatch.setattr(ours, "FlatAdamW", Reference)
    expected = [record for record in train(make_run(method)) if record.event == "step"]
    assert len(found) == 20
    for one, two in zip(found, expected, strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-4, abs=1e-6)
        assert one.grad_norm == pytest.approx(two.grad_norm, rel=2e-3, abs=1e-6)


def parameters(generator: torch.Generator, device: str = "cpu") -> dict[str, nn.Parameter]:
    shapes = {"a": (3, 5), "b": (5, 3), "gate": (3,), "bias": (2,), "large": (SMALL // 8 + 1, 8)}
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for name, shape in shapes.items()
    }


def test_resting_parameters_and_replaced_gradients_are_as_with_torchs_adamw():
    generator = torch.Generator().manual_seed(0)
    mine = parameters(generator)
    theirs = {name: nn.Parameter(value.detach().clone()) for name, value in mine.items()}
    one, two = make_optimizer(mine, 0.1), Reference(split_groups(theirs, 0.1, {}))
    for step in range(12):
        for name in mine:
            gradient = torch.randn(mine[name].shape, generator=generator, dtype=torch.float64) * 5
            rests = name == "b" and step in (4, 5, 9)
            mine[name].grad, theirs[name].grad = (None, None) if rests else (gradient, gradient.clone())
        assert one.clip(mine.values(), 1.0) == pytest.approx(two.clip(theirs.values(), 1.0))
        if step % 3 == 2:
            mine["a"].grad, theirs["a"].grad = mine["a"].grad * 2, theirs["a"].grad * 2
        for optimizer in (one, two):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * step
            optimizer.step()
            optimizer.zero_grad()
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-12, atol=1e-12)
            if name in ("a", "b", "large"):
                for kind in ("exp_avg", "exp_avg_sq"):
                    torch.testing.assert_close(one.state[value][kind], two.state[theirs[name]][kind])
    assert one.steps_of(mine["b"]) == 9 and one.steps_of(mine["a"]) == 12
    found = optimizer_tensors(one, mine)
    assert found["optimizer.step.b"] == 9 and len(found) == 3 * len(mine)


def test_small_parameters_of_a_group_share_one_tensor_and_large_ones_keep_their_own():
    mine = parameters(torch.Generator())
    before = {name: value.data_ptr() for name, value in mine.items()}
    make_optimizer(mine, 0.1)
    storage = {name: value.untyped_storage().data_ptr() for name, value in mine.items()}
    assert storage["a"] == storage["b"] and storage["gate"] == storage["bias"] != storage["a"]
    assert storage["large"] == before["large"]


def test_several_optimizers_step_at_once_as_each_by_itself():
    apart, together = ([parameters(torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)] for _ in range(2))
    for sets, at_once in ((apart, False), (together, True)):
        optimizers = [make_optimizer(one, 0.1) for one in sets]
        for optimizer, rate in zip(optimizers, (0.1, 0.1, 0.3), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
        for _ in range(3):
            for one in sets:
                for value in one.values():
                    value.grad = value.detach().cos()
            if at_once:
                step_all(optimizers)
            else:
                for optimizer in optimizers:
                    optimizer.step()
    for one, two in zip(apart, together, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("restart", ["true", "false"])
def test_growth_resumes_bit_for_bit_though_the_groups_are_others_then(restart):
    method = f"increlora:target_rank=3,reserve=2,interval=2,restart_warmup={restart}"
    whole, first = make_run(method), make_run(method)
    expected = [entry for entry in curve(train(whole)) if len(entry) == 4]
    records = train(first)
    while first.step < 13:
        next(records)
    again = make_run(method)
    again.attached.load_extra_state(first.attached.extra_state())
    again._build_optimizer()
    with torch.no_grad():
        for name, value in first.parameters.items():
            again.parameters[name].copy_(value)
        for name, value in first.attached.persistent_buffers().items():
            again.attached.persistent_buffers()[name].copy_(value)
    ours.load_optimizer_tensors(again.optimizer, again.parameters, optimizer_tensors(first.optimizer, first.parameters))
    again.step = first.step
    assert isinstance(again, Run)
    assert [entry for entry in curve(train(again)) if len(entry) == 4] == expected[13:]
