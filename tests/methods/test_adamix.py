"""AdaMix: routes by step, the loss on two passes, and the average that is evaluated and stored."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.methods.adamix import average, consistency
from peft_core.metrics.flops import adapter_flops_executed
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach, loss_of, take_steps
from tests.training.test_loop import DATA, make_run, train


def test_routes_change_by_step_and_place_and_follow_the_seed():
    routes = []
    for seed in (1, 1, 2):
        attached = attach(miniature("roberta"), "adamix", seed=seed, bottleneck=4)
        modules = list(attached.modules.values())
        drawn = []
        for step in range(40):
            for hook in attached.before_step:
                hook(step)
            drawn.append(tuple(tuple(module.routes) for module in modules))
        routes.append(drawn)
    assert routes[0] == routes[1] != routes[2]
    assert len(set(routes[0])) > 35 and any(first != second for first, second in routes[0])
    ends = [end for places in routes[0] for views in places for view in views for end in view]
    assert set(ends) == {0, 1, 2, 3} and all(50 < ends.count(expert) < 110 for expert in range(4))
    assert any(view[0] != view[1] for places in routes[0] for views in places for view in views)


def test_training_takes_the_routed_experts_and_leaves_the_others_at_rest():
    attached = attach(miniature("roberta"), "adamix", bottleneck=4)
    for hook in attached.before_step:
        hook(7)
    attached.train()
    loss_of(attached).backward()
    for module in attached.modules.values():
        down, up = module.routes[0]
        assert [i for i in range(4) if module.V[i].grad is not None] == [down]
        assert [i for i in range(4) if module.U[i].grad is not None] == [up]
    x = torch.randn(3, 32)
    plain = F.linear(torch.relu(F.linear(x, module.V[down], module.b_V[down])), module.U[up], module.b_U[up])
    module.phi = torch.relu
    torch.testing.assert_close(module(x), plain)


def test_evaluation_is_the_averaged_expert_and_so_is_what_is_stored():
    attached = attach(miniature("roberta"), "adamix", bottleneck=4, experts=3)
    take_steps(attached, 6)
    attached.train(False)
    stored = attached.stored()
    x = torch.randn(5, 32)
    for name, module in attached.modules.items():
        v, u, b_v, b_u = (torch.stack([*getattr(module, role)]).mean(0) for role in ("V", "U", "b_V", "b_U"))
        torch.testing.assert_close(module(x), F.linear(module.phi(F.linear(x, v, b_v)), u, b_u))
        torch.testing.assert_close(stored[f"{name}.V"], v.detach())
    one = 2 * 4 * 32 + 4 + 32
    assert sum(value.numel() for value in stored.values()) == 2 * one
    assert attached.active_parameters() == 3 * 2 * one
    assert adapter_flops_executed(attached.counts) == 2 * 4 * 4 * 32, "one expert a pass"
    again = attach(miniature("roberta"), "adamix", bottleneck=4, experts=3)
    again.load_stored(stored, attached.stored_head())
    outputs = []
    for each in (attached, again):
        each.train(False)
        with each.active():
            outputs.append(each.backbone.logits(batch_for(each.backbone)))
    assert torch.equal(*outputs)
    assert attached.updates()[0].kind == "linear_map" and attached.updates()[0].bound == 4


def test_the_average_of_equal_experts_is_exact():
    value = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(average([value] * 3), value)
    values = list(torch.randn(3, 50, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(average(values), sum(values) / 3)


def test_the_consistency_loss_is_a_symmetric_divergence_or_a_squared_error():
    first, second = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    p, q = first.softmax(-1), second.softmax(-1)
    expected = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean() / 2
    torch.testing.assert_close(consistency(first, second, True), expected)
    torch.testing.assert_close(consistency(second, first, True), expected)
    assert float(consistency(first, first, True)) == 0
    torch.testing.assert_close(consistency(first[:, 0], second[:, 0], False), (first - second)[:, 0].square().mean())


def test_the_loop_runs_both_passes_and_counts_them():
    mixed, plain = (make_run(method, steps=4) for method in ("adamix:bottleneck=4", "adapter_pfeiffer:bottleneck=4"))
    ours, base = ([r for r in train(run) if r.event == "step"] for run in (mixed, plain))
    assert ours[0].penalty == pytest.approx(0, abs=1e-12), "experts start equal"
    assert all(record.penalty > 0 for record in ours[1:]) and all(record.penalty is None for record in base)
    assert ours[0].loss == base[0].loss, "the task loss is the first pass's, and the experts start as the adapter"
    assert ours[-1].flops == 2 * base[-1].flops
    assert all(module.view == 0 for module in mixed.attached.modules.values())


def test_the_step_s_gradient_is_that_of_both_passes():
    run = make_run("adamix:bottleneck=4", steps=6, clip_norm=None)
    records = train(run)
    while run.step < 4:
        next(records)
    attached, rows = run.attached, run.schedule.batch(4)[1]
    attached.train()
    for hook in attached.before_step:
        hook(4)
    batch, labels = DATA.train.batch(rows, attached.device), DATA.train.labels_of(rows, attached.device)
    with attached.active():
        first = attached.backbone.logits(batch)
        attached.second_pass.route(1)
        second = attached.backbone.logits(batch)
        attached.second_pass.route(0)
    loss = F.cross_entropy(first, labels) + consistency(first, second, True)
    expected = torch.autograd.grad(loss, list(run.parameters.values()), allow_unused=True)
    seen = {}
    attached.before_update.append(
        lambda step, optimizer: seen.update(
            (name, p.grad.clone()) for name, p in run.parameters.items() if p.grad is not None
        )
    )
    next(records)
    routed = {name: grad for name, grad in zip(run.parameters, expected, strict=True) if grad is not None}
    assert seen.keys() == routed.keys()
    for name, gradient in routed.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-7)


def test_accumulated_micro_batches_equal_the_whole_batch():
    whole, split = (
        [r for r in train(make_run("adamix:bottleneck=4", accumulation=parts)) if r.event == "step"] for parts in (1, 4)
    )
    # Sums in another order, through 20 steps of Adam.
    for kind in ("loss", "penalty"):
        a, b = ([getattr(record, kind) for record in records] for records in (whole, split))
        torch.testing.assert_close(torch.tensor(b), torch.tensor(a), rtol=5e-3, atol=1e-3)


def test_one_expert_is_the_plain_adapter():
    alone, plain = (
        [(r.loss, r.grad_norm) for r in train(make_run(method, steps=5)) if r.event == "step"]
        for method in ("adamix:bottleneck=4,experts=1", "adapter_pfeiffer:bottleneck=4")
    )
    assert alone == plain
