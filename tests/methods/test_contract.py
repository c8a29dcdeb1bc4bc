"""What every method must keep, over all methods and families: a new method is tested without being asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from peft_core.backbones import initial_head
from peft_core.methods import Attached, list_methods, resolve
from peft_core.metrics.parameters import stored_parameters, trainable_parameters
from peft_core.metrics.storage import seed_bits, stored_bits
from peft_core.records import InputError, MethodSpec
from peft_core.training.loop import Run
from peft_core.training.optimizer import group_rate, make_optimizer
from tests.conftest import batch_for, has_place, home, miniature
from tests.miniatures import CORE

OPTIONS = {
    "lora": {"rank": 4},
    "adalora": {"target_rank": 4},
    "increlora": {"target_rank": 2},
    "capaboost_lora": {"rank": 4},
    "adapter_pfeiffer": {"bottleneck": 4},
    "capaboost_pfeiffer": {"bottleneck": 4},
    "adapter_houlsby": {"bottleneck": 4},
    "capaboost_houlsby": {"bottleneck": 4},
    "prefix": {"length": 4, "bottleneck": 16},
    "capaboost_prefix": {"length": 4},
    "vpt_deep": {"length": 4},
    "propetl_lora": {"rank": 4},
    "propetl_pfeiffer": {"bottleneck": 4},
    "propetl_prefix": {"length": 4, "bottleneck": 16},
    "adamix": {"bottleneck": 4},
}
PAIRS = [(method, family) for method in list_methods() for family in CORE]
MATRIX = [(method.id, family) for method, family in PAIRS if has_place(method, family)]
SINGLE = {"t5": [f"adapter.decoder.{layer}.{role}." for layer in range(2) for role in "qk"]}
"""Label words take one decoder position, which attends to itself alone whatever its query and key are."""
OUTSIDE = [(method.id, family) for method, family in PAIRS if not has_place(method, family)]


def attach(backbone, method_id: str, seed: int = 1, **options) -> Attached:
    method = next(method for method in list_methods() if method.id == method_id)
    config = resolve(MethodSpec(id=method_id, options=OPTIONS.get(method_id, {}) | options))
    attached = method.attach(backbone, config, torch.Generator().manual_seed(seed))
    attached.train_head(initial_head(backbone, seed))
    return attached


def loss_of(attached: Attached, rows=slice(None)) -> torch.Tensor:
    batch = {name: tensor[rows] for name, tensor in batch_for(attached.backbone).items()}
    labels = torch.tensor([0, 1, 2, 0, 1, 2])[rows]
    with attached.active():
        return F.cross_entropy(attached.backbone.logits(batch), labels)


@torch.no_grad()
def evaluated(attached: Attached) -> float:
    attached.train(False)
    return float(loss_of(attached))


def stepping(attached: Attached, steps: int, rate: float = 5e-3) -> Iterator[float]:
    """Steps in the order of training/loop.py, with everything that an attachment gives it; yields the task losses."""
    total = max(steps, 20)
    for hook in attached.on_start:
        hook(total)
    run = SimpleNamespace(attached=attached, weight_decay=0.01, parameters=attached.trainable())
    run.optimizer = make_optimizer(run.parameters, run.weight_decay, attached.groups)
    for step in range(steps):
        for group in run.optimizer.param_groups:
            group["lr"] = group_rate(group["schedule"], step, total, rate, 0.0)
        attached.train()
        for hook in attached.before_step:
            hook(step)
        attached.begin_rows(step, 0)
        loss = loss_of(attached)
        (loss + added_loss(attached)).backward()
        for act in (*attached.after_backward, *attached.before_update):
            act(step, run.optimizer)
        run.optimizer.step()
        for act in attached.after_step:
            act(step, run.optimizer)
        run.optimizer.zero_grad()
        Run.take_up_growth(run)
        yield float(loss.detach())


def added_loss(attached: Attached) -> torch.Tensor:
    """The penalty, and what a second pass adds."""
    added = torch.zeros(())
    if attached.penalty is not None:
        added = added + attached.penalty()
    if attached.second_pass is not None:
        batch, outputs = batch_for(attached.backbone), []
        for route in (0, 1):
            attached.second_pass.take(route)
            with attached.active():
                outputs.append(attached.backbone.logits(batch))
        attached.second_pass.take(0)
        added = added + attached.second_pass.loss(*outputs, True)
    return added


def take_steps(attached: Attached, steps: int, rate: float = 5e-3) -> list[float]:
    return list(stepping(attached, steps, rate))


@torch.no_grad()
@pytest.mark.parametrize(("method_id", "family"), MATRIX)
def test_a_fresh_attachment_leaves_the_output_where_it_says_so(method_id, family):
    backbone = miniature(family)
    attached = attach(backbone, method_id)
    batch = batch_for(backbone)
    before = backbone.features(batch)
    with attached.active():
        during = backbone.features(batch)
    zero_init = next(method for method in list_methods() if method.id == method_id).zero_init
    assert torch.equal(before, during) == zero_init
    assert torch.equal(backbone.features(batch), before), "the backbone must be as it was afterwards"


@pytest.mark.parametrize(("method_id", "family"), MATRIX)
def test_only_declared_parameters_change_and_each_has_a_gradient(method_id, family):
    backbone = miniature(family)
    frozen = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    attached = attach(backbone, method_id)
    started = {name: parameter.detach().clone() for name, parameter in attached.trainable().items()}
    attached.train()
    for step in range(30):  # what a step draws may leave parameters out, but not for ever
        for hook in attached.before_step:
            hook(step)
        loss_of(attached).backward()
        unused = {name for name, parameter in attached.trainable().items() if parameter.grad is None}
        if not unused - {f"backbone.{name}" for name in backbone.body_parameters()}:
            break
    assert not unused - {f"backbone.{name}" for name in backbone.body_parameters()}
    assert all("adapter" not in name and "head" not in name for name in unused)
    for parameter in attached.trainable().values():
        parameter.grad = None
    take_steps(attached, max(3, step + 1))
    now = attached.trainable()
    assert now.keys() >= started.keys()
    changed = {name for name, value in started.items() if not torch.equal(now[name], value)}
    idle = {name for name in started if name.startswith(tuple(SINGLE.get(family, ())))}
    assert changed >= set(started) - unused - idle
    assert all(torch.equal(value, frozen[name]) for name, value in backbone.model.state_dict().items())


@pytest.mark.parametrize(("method_id", "family"), MATRIX)
def test_the_loss_falls(method_id, family):
    attached = attach(miniature(family), method_id)
    first = evaluated(attached)
    take_steps(attached, 25, rate=1e-2)
    assert evaluated(attached) < first - 0.02


@pytest.mark.parametrize(("method_id", "family"), MATRIX)
def test_two_half_batches_accumulated_equal_a_full_one(method_id, family):
    attached = attach(miniature(family), method_id)
    attached.train()
    loss_of(attached).backward()
    whole = {name: p.grad.clone() for name, p in attached.trainable().items() if p.grad is not None}
    for parameter in attached.trainable().values():
        parameter.grad = None
    for rows in (slice(0, 3), slice(3, 6)):
        (loss_of(attached, rows) / 2).backward()
    for name, gradient in whole.items():
        torch.testing.assert_close(attached.trainable()[name].grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method_id", "family"), MATRIX)
def test_a_stored_adapter_gives_the_same_outputs_in_a_fresh_attachment(method_id, family):
    backbone = miniature(family)
    attached = attach(backbone, method_id, seed=7)
    take_steps(attached, 12 if attached.counts_at_target else 3)  # what grows must have ended growing
    attached.train(False)
    batch = batch_for(backbone)
    with attached.active():
        expected = backbone.logits(batch)
    again = attach(miniature(family), method_id, seed=7)
    again.load_stored(attached.stored(), attached.stored_head())
    again.train(False)
    with again.active():
        assert torch.equal(again.backbone.logits(batch), expected)


@pytest.mark.parametrize(("method_id", "family"), OUTSIDE)
def test_a_method_says_where_it_has_no_place(method_id, family):
    with pytest.raises(InputError) as refused:
        attach(miniature(family), method_id)
    assert (refused.value.field, refused.value.value) == ("method", method_id)


@pytest.mark.parametrize("method_id", [method.id for method in list_methods()])
def test_equal_seeds_start_equal_and_others_do_not(method_id):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(states))
        attached = attach(miniature(home(method_id)), method_id, seed=seed)
        buffers = {f"{n}.{b}": v for n, m in attached.modules.items() for b, v in m.named_buffers()}
        states.append({name: p.detach() for name, p in attached.trainable().items()} | buffers)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("method_id", [method.id for method in list_methods()])
def test_what_is_counted_is_what_trains_and_what_is_stored(method_id):
    attached = attach(miniature(home(method_id)), method_id)
    take_steps(attached, 3)
    attached.train()
    loss_of(attached).backward()
    gradients = [p.grad for n, p in attached.trainable().items() if not n.startswith("head.") and p.grad is not None]
    waiting = sum(count.rows * count.cols for count in attached.counts if count.role.endswith(".reserve"))
    assert sum(int(gradient.ne(0).sum()) for gradient in gradients) <= attached.active_parameters() + waiting
    assert attached.active_parameters() == trainable_parameters(attached.counts)
    tensors, counts = attached.stored(), attached.stored_counts()
    assert sum(value.nbytes for value in tensors.values()) == math.ceil((stored_bits(counts) - seed_bits(counts)) / 8)
    numbers = sum(value.numel() for value in tensors.values() if value.dtype != torch.uint8)
    assert stored_parameters(counts) == numbers


def test_methods_stay_apart_on_one_backbone():
    backbone = miniature("roberta")
    alone = take_steps(attach(backbone, "lora"), 4)
    first, second = attach(backbone, "lora"), attach(backbone, "full")
    losses = [loss for loss, _ in zip(stepping(first, 4), stepping(second, 4), strict=True)]
    assert losses == alone


def test_a_foreign_adapter_is_refused():
    attached = attach(miniature("roberta"), "lora")
    with pytest.raises(InputError, match="its tensors must be exactly those"):
        attached.load_stored({"encoder.0.q.C": torch.zeros(2)}, attached.stored_head())
    other = attach(miniature("roberta"), "lora", rank=2)
    with pytest.raises(InputError, match="it must hold"):
        attached.load_stored(other.stored(), other.stored_head())
