"""IncreLoRA: when, where and how far ranks grow, and the score that decides."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from peft_core.methods import _importance
from peft_core.methods._components import GrowingTriples
from peft_core.methods._growth import GrowthPlan, GrowthSchedule, choose
from peft_core.records import InputError
from peft_core.training.loop import train
from tests.conftest import miniature
from tests.methods.test_contract import attach, loss_of
from tests.training.test_loop import make_run

SMALL = "increlora:target_rank=3,sites=qv,interval=2"
MAPS, TARGET = 4, 12
"""SMALL on a miniature: query and value of two layers."""


def stepped(run):
    """Trains a run; gives the number of each step after it is done, counted from 0."""
    for record in train(run):
        if record.event == "step":
            yield record.step - 1


def ranks(attached) -> list[int]:
    return [module.rank for module in attached.modules.values()]


def grown(family: str, steps: int = 8, **options):
    """An attachment trained by plain steps with all hooks; the target is reached."""
    attached = attach(miniature(family), "increlora", **({"target_rank": 3, "sites": "six"} | options))
    for hook in attached.on_start:
        hook(steps)
    for step in range(steps):
        attached.train()
        for hook in attached.before_step:
            hook(step)
        (loss_of(attached) + attached.penalty()).backward()
        parameters = list(attached.trainable().values())
        for hook in attached.before_update:
            hook(step, None)
        torch.optim.SGD(parameters, lr=0.5).step()
        for parameter in attached.trainable().values():
            parameter.grad = None
    attached.train(False)
    return attached


# --- the schedule ---


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ("top_h=2", [2, 4, 6, 8]),
        ("top_h=2,first_growth=2nu", [4, 6, 8, 10]),
        ("top_h=2,reserve=2", [2, 4]),
        ("top_h=3,reserve=3", [2]),
        ("top_h=100", [2, 4]),
        ("top_h=3", [2, 4, 6]),
    ],
)
def test_ranks_grow_at_exactly_these_steps_and_end_at_the_target(options, steps):
    run = make_run(f"{SMALL},{options}")
    totals = [MAPS]
    seen = []
    for step in stepped(run):
        totals.append(sum(ranks(run.attached)))
        if totals[-1] != totals[-2]:
            seen.append(step)
    assert seen == steps and totals[-1] == TARGET


@pytest.mark.parametrize(
    ("plan", "total", "interval", "top_h", "last"),
    # 12 maps and target 8: 84 ranks to gain
    [
        (GrowthPlan(8, None, None, 1, "nu"), 20, 1, 9, 10),
        (GrowthPlan(8, None, None, 1, "2nu"), 20, 1, 10, 10),
        (GrowthPlan(8, None, None, 1, "nu"), 400, 10, 5, 170),
        (GrowthPlan(8, None, None, 3, "nu"), 400, 10, 2, 140),
        (GrowthPlan(8, None, 2, 1, "nu"), 400, 4, 2, 168),
        (GrowthPlan(8, None, 2, 1, "2nu"), 400, 4, 2, 172),
        (GrowthPlan(8, 50, None, 1, "nu"), 800, 50, 11, 400),
        (GrowthPlan(8, 50, 99, 1, "nu"), 800, 50, 12, 350),
        (GrowthPlan(1, None, None, 1, "nu"), 3, 1, 1, 0),
        (GrowthPlan(1, None, 4, 1, "2nu"), 3, 1, 4, 0),
    ],
)
def test_what_is_left_out_of_the_schedule_reaches_the_target_by_half(plan, total, interval, top_h, last):
    schedule = GrowthSchedule(plan, 12, total)
    assert (schedule.interval, schedule.top_h, schedule.last) == (interval, top_h, last) and last <= total // 2


@pytest.mark.parametrize(
    ("plan", "total", "words"),
    [
        (GrowthPlan(8, 100, 2, 1, "nu"), 400, "interval is 100; ranks would grow until step 4200"),
        (GrowthPlan(8, None, 1, 1, "nu"), 100, "top_h is 1; ranks would grow until step 84, and must be there by step"),
        (
            GrowthPlan(8, None, None, 1, "nu"),
            13,
            "target_rank is 8; .* step 7, and must be there by step 6, half of 13",
        ),
        (GrowthPlan(8, None, None, 1, "2nu"), 14, "target_rank is 8"),
    ],
)
def test_a_schedule_that_comes_too_late_is_refused(plan, total, words):
    with pytest.raises(InputError, match=words):
        GrowthSchedule(plan, 12, total)


# --- the choice ---


@pytest.mark.parametrize(
    ("scores", "top_h", "reserve", "room", "gains"),
    [
        ([0.1, 0.9, 0.5, 0.7], 2, 1, 9, {1: 1, 3: 1}),
        ([0.1, 0.5, 0.5, 0.7], 2, 1, 9, {3: 1, 1: 1, 2: 1}),
        ([0.5, 0.5, 0.5, 0.5], 1, 1, 9, {0: 1, 1: 1, 2: 1, 3: 1}),
        ([0.5, 0.5, 0.5, 0.5], 1, 1, 3, {0: 1, 1: 1, 2: 1}),
        ([0.1, 0.9, 0.5, 0.7], 3, 1, 2, {1: 1, 3: 1}),
        ([0.1, 0.9, 0.5, 0.7], 3, 3, 5, {1: 3, 3: 2}),
        ([0.1, 0.9, 0.5, 0.7], 1, 4, 2, {1: 2}),
        ([0.3, 0.2], 5, 1, 9, {0: 1, 1: 1}),
    ],
)
def test_the_best_maps_grow_with_all_ties_and_never_too_far(scores, top_h, reserve, room, gains):
    assert choose(scores, top_h, reserve, room, [99] * len(scores)) == gains


@pytest.mark.parametrize(
    ("free", "gains"), [([9, 0, 9, 9], {3: 2, 2: 2}), ([9, 1, 9, 9], {1: 1, 3: 2}), ([0, 0, 3, 0], {2: 2})]
)
def test_a_map_at_its_smaller_side_is_passed_over(free, gains):
    assert choose([0.1, 0.9, 0.5, 0.7], 2, 2, 9, free) == gains


@pytest.mark.parametrize("reserve", [1, 3])
def test_no_map_grows_beyond_its_smaller_side_and_the_target_is_reached_by_half(monkeypatch, reserve):
    """The first map has the largest score in every step; all six have sides of 32 or more."""
    run = make_run(f"increlora:target_rank=31,sites=qv,top_h=2,reserve={reserve}", steps=160)
    modules = list(run.attached.modules.values())
    place = {module.site.name: index for index, module in enumerate(modules)}
    monkeypatch.setattr(GrowingTriples, "sensitivity", lambda self: torch.tensor(1.0 - 0.1 * place[self.site.name]))
    for step in stepped(run):
        assert max(ranks(run.attached)) <= 32
        if step == 80:
            break
    assert sum(ranks(run.attached)) == 31 * len(modules) and ranks(run.attached)[0] == 32


@pytest.mark.parametrize("score", ["sum_sqrt", "mean"])
def test_maps_are_chosen_by_the_product_of_smoothed_score_and_uncertainty(monkeypatch, score):
    """A table of scores by hand; a tie between two maps of equal score."""
    run = make_run(f"increlora:target_rank=2,sites=six,top_h=3,interval=2,score={score},beta1=0.7,beta2=0.6")
    sites = [module.site for module in run.attached.modules.values()]
    table = {site.name: torch.rand(20, generator=torch.Generator().manual_seed(i // 2)) for i, site in enumerate(sites)}
    clock = itertools.count()
    monkeypatch.setattr(
        GrowingTriples, "sensitivity", lambda self: table[self.site.name][next(clock) // len(sites)].clone()
    )
    before = ranks(run.attached)
    for step in stepped(run):
        if step == 2:
            break
    products = []
    for site in sites:
        smooth = uncertain = torch.tensor(0.0)
        size = site.in_features * site.out_features
        for s in table[site.name][:3] / (size if score == "mean" else math.sqrt(size)):
            smooth = 0.7 * smooth + 0.3 * s
            uncertain = 0.6 * uncertain + 0.4 * (smooth - s).abs()
        products.append(float(smooth * uncertain))
    third = sorted(products)[-3]
    expected = {i for i, value in enumerate(products) if value >= third * (1 - 1e-6)}
    gained = {i for i, (a, b) in enumerate(zip(before, ranks(run.attached), strict=True)) if b > a}
    assert gained == expected and len(gained) == 4


# --- the score ---


@pytest.mark.parametrize("options", [{}, {"boost.d": 2}, {"reserve": 2}])
@pytest.mark.parametrize("family", ["roberta", "deberta_v2", "gpt2", "albert", "modernbert"])
def test_the_tiled_score_is_that_of_the_whole_matrices(family, options, monkeypatch):
    """Oracle: Delta W as a leaf of its own. DeBERTa's queries and keys are used twice in a forward."""
    monkeypatch.setattr(_importance, "TILE", 100)
    attached = grown(family, **options)
    module = next(m for m in attached.modules.values() if m.site.role in ("k", "qkv"))
    module.watched = module.reserve_works = True
    attached.train()
    halves = (slice(0, 3), slice(3, 6))
    module.draw(0)
    for rows in halves:
        (loss_of(attached, rows) / 2).backward()
    tiled = float(module.sensitivity())
    delta = (module.left(module.parts) @ module.right(module.parts)).detach().requires_grad_()
    module.forward = lambda x: F.linear(x, delta)
    for rows in halves:
        (loss_of(attached, rows) / 2).backward()
    assert tiled == pytest.approx(float((delta * delta.grad).abs().sum().detach()), rel=1e-4)
    assert tiled > 0 and float(module.sensitivity()) == 0, "what was captured is let go"


def test_the_score_is_of_the_task_loss_alone():
    values = []
    for penalty in (0.0, 10.0):
        run = make_run(f"{SMALL},top_h=2,orthogonality={penalty}")
        steps = stepped(run)
        next(steps)
        values.append([float(m.importance.sensitivity_delta) for m in run.attached.modules.values()])
    assert values[0] == values[1]
