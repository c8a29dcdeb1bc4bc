"""AdaLoRA and SoRA: budgets, thresholds, revival, and what is left in the end."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from peft_core.budget import budget
from peft_core.methods._importance import Importance, below_threshold
from peft_core.methods.adalora import Config, Schedule
from peft_core.methods.sora import soft_threshold
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import stored_parameters
from peft_core.records import InputError, MethodSpec
from peft_core.training.loop import train
from peft_core.training.result import result_of
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach, loss_of
from tests.training.test_loop import DATA, make_run


def run_steps(attached, steps: int, total: int | None = None, rate: float = 1e-2):
    """Training steps with all hooks; yields the step after each."""
    for hook in attached.on_start:
        hook(total or steps)
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=rate, fused=True)
    for step in range(steps):
        attached.train()
        loss = loss_of(attached) + (attached.penalty() if attached.penalty else 0)
        loss.backward()
        for hook in attached.before_update:
            hook(step, optimizer)
        optimizer.step()
        for hook in attached.after_step:
            hook(step, optimizer)
        optimizer.zero_grad()
        yield step


@pytest.mark.parametrize("boost", ["", ",boost.d=2,boost.sparsity=0.5"])
@pytest.mark.parametrize(
    "method", ["adalora:target_rank=2,initial_rank=5,sites=qv", "sora:rank=5,sites=qv,threshold=0.02"]
)
def test_nominal_flops_leave_pruned_directions_out(method, boost, tmp_path):
    run = make_run(method + boost, folder=tmp_path, steps=40, eval_every=40)
    steps = [record for record in train(run) if record.event == "step"]
    by_hand = 0
    for module in run.attached.modules.values():
        alive, by = module.gate != 0, module.gate.unsqueeze(1)
        copies = (
            module.mask_A(torch.ones_like(module.A)) * (by != 0),
            module.mask_B(torch.ones_like(module.B)) * alive,
        )
        by_hand += sum(2 * int(copy.count_nonzero()) for copy in copies)
    pruned = sum(int((module.gate == 0).sum()) for module in run.attached.modules.values())
    assert pruned > 0
    assert adapter_flops_nominal(run.attached.nominal_counts()) == by_hand
    assert result_of(run, None).adapter_flops_nominal == by_hand < adapter_flops_executed(run.attached.counts)
    tokens = len(run.schedule.batch(39)[1]) * max(DATA.train.lengths()[row] for row in run.schedule.batch(39)[1])
    assert steps[-1].adapter_flops_nominal - steps[-2].adapter_flops_nominal == pytest.approx(3 * tokens * by_hand)


def test_a_budget_counts_what_adalora_leaves():
    lora, ours = budget(
        "tiny-text", [MethodSpec.parse(f"{name},sites=qv") for name in ("lora:rank=4", "adalora:target_rank=4")]
    )
    assert ours["adapter_flops_nominal"] == lora["adapter_flops_nominal"] and ours["flops_vs_lora"] == 1
    assert ours["adapter_flops_executed"] == 1.5 * lora["adapter_flops_executed"]


@pytest.mark.parametrize(
    ("step", "budget"),
    # T = 100, t_i = 20, t_f = 30: cubic from 36 to 12 between steps 20 and 70
    [(0, 36), (20, 36), (21, int(12 + 24 * (1 - 1 / 50) ** 3)), (45, 15), (70, 12), (71, 12), (99, 12)],
)
def test_the_budget_falls_as_a_cube(step, budget):
    schedule = Schedule(Config(warmup=20, final=30), 100, 36, 12)
    assert schedule.budget(step) == budget


def test_the_budget_is_applied_at_intervals_and_at_every_step_of_the_last_phase():
    schedule = Schedule(Config(warmup=20, final=30, interval=10), 100, 36, 12)
    assert [step for step in range(100) if schedule.prunes(step)] == [30, 40, 50, 60, 70, *range(71, 100)]


def test_a_schedule_without_a_middle_is_refused():
    with pytest.raises(InputError, match="leaves no step of 10"):
        Schedule(Config(warmup=5, final=5), 10, 4, 2)


@pytest.mark.parametrize(
    ("drop", "zeroed"),
    [(0, set()), (2, {0.1, 0.2}), (3, {0.1, 0.2, 0.3}), (6, {0.1, 0.2, 0.3, 0.9, 1.0})],
)
def test_the_threshold_goes_over_all_maps_and_takes_ties(drop, zeroed):
    scores = [torch.tensor([0.9, 0.1, 0.3]), torch.tensor([0.3, 1.0, 0.2])]
    masks = below_threshold(scores, drop)
    dropped = {round(float(value), 3) for score, mask in zip(scores, masks, strict=True) for value in score[mask]}
    assert dropped == zeroed


def test_importance_follows_its_recursion():
    importance = Importance({"A": torch.Size([2])}, 0.85, 0.85)
    smooth = uncertain = torch.zeros(2)
    for s in (torch.tensor([1.0, 4.0]), torch.tensor([3.0, 0.0])):
        smooth = 0.85 * smooth + 0.15 * s
        uncertain = 0.85 * uncertain + 0.15 * (s - smooth).abs()
        importance.update("A", s)
    torch.testing.assert_close(importance.score("A"), smooth * uncertain)


def test_adalora_ends_at_its_target_and_zeroes_the_same_directions_at_the_end():
    attached = attach(miniature("roberta"), "adalora", target_rank=3, initial_rank=5, warmup=3, final=8, interval=1)
    patterns = []
    for step in run_steps(attached, 30):
        gates = torch.stack([module.gate != 0 for module in attached.modules.values()])
        patterns.append((step, gates.clone()))
    sites = len(attached.modules)
    last = [pattern for step, pattern in patterns if step > 22]
    assert all(int(pattern.sum()) == 3 * sites for pattern in last)
    assert all(torch.equal(a, b) for a, b in itertools.pairwise(last)), "frozen scores drop the same set again"
    attached.train(False)
    ranks = {
        update.site: int(torch.linalg.matrix_rank(update.left.double() @ update.right.double()))
        for update in attached.updates()
    }
    assert sum(ranks.values()) == 3 * sites and len(set(ranks.values())) > 1
    stored = attached.stored()
    for site, rank in ranks.items():
        a, b = (stored[f"{site}.{role}"].numel() for role in ("A", "B"))
        module = attached.modules[site]
        assert (a, b) == (rank * module.A.shape[1], rank * module.B.shape[0])


def test_adalora_trains_all_directions_between_prunings():
    attached = attach(miniature("roberta"), "adalora", target_rank=2, initial_rank=4, warmup=2, final=4, interval=50)
    steps = list(run_steps(attached, 12, total=16))
    assert len(steps) == 12 and all((module.gate != 0).all() for module in attached.modules.values())


@pytest.mark.parametrize(
    ("gate", "code", "plain"),
    [(1.0, 0.9, 0.9), (-1.0, -0.9, -0.9), (0.15, 0.0, 0.05), (-0.15, 0.0, -0.05), (0.05, 0.0, 0.0), (0.0, 0.0, 0.0)],
)
def test_the_soft_threshold_and_the_wider_one_of_the_code(gate, code, plain):
    value = torch.tensor([gate])
    assert float(soft_threshold(value, 0.1, 0.1)) == pytest.approx(plain, abs=1e-7)
    assert float(soft_threshold(value, 0.1, 0.2)) == pytest.approx(code, abs=1e-7)


def test_a_zero_gate_revives_and_pruning_it_changes_nothing():
    attached = attach(miniature("roberta"), "sora", rank=4, threshold=0.0)
    module = next(iter(attached.modules.values()))
    for _ in run_steps(attached, 3):
        pass
    with torch.no_grad():
        module.gate[1] = 0.0
    attached.train(False)
    batch = batch_for(attached.backbone)
    with attached.active():
        expected = attached.backbone.logits(batch)
    rows, columns = module.A.detach().clone(), module.B.detach().clone()
    with torch.no_grad():
        module.A[1], module.B[:, 1] = 0.0, 0.0
    with attached.active():
        torch.testing.assert_close(attached.backbone.logits(batch), expected)
    with torch.no_grad():
        module.A.copy_(rows)
        module.B.copy_(columns)
    for _ in run_steps(attached, 1):
        pass
    assert module.gate[1] != 0


def test_sora_gates_reach_exact_zeros_and_are_not_stored():
    attached = attach(miniature("roberta"), "sora", rank=6, threshold=0.05)
    before = attached.active_parameters()
    for _ in run_steps(attached, 20):
        pass
    zeros = sum(int((module.gate == 0).sum()) for module in attached.modules.values())
    assert zeros and attached.active_parameters() < before
    again = attach(miniature("roberta"), "sora", rank=6, threshold=0.05)
    again.load_stored(attached.stored(), attached.stored_head())
    batch = batch_for(attached.backbone)
    outputs = []
    for one in (attached, again):
        one.train(False)
        with one.active():
            outputs.append(one.backbone.logits(batch))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("boost", [{}, {"boost.d": 2}])
def test_of_a_direction_with_a_zero_gate_nothing_is_stored(boost):
    """SoRA stores nnz(g) (in + out + 1) values, and a bit a direction (METHODS.md, section 0)."""
    attached = attach(miniature("roberta"), "sora", rank=6, **boost)
    modules = dict(attached.modules)
    with torch.no_grad():
        for index, module in enumerate(modules.values()):
            module.gate[: index % 4] = 0.0
            module.B.normal_(0, 0.1)
    stored, counts = attached.stored(), attached.stored_counts()
    alive = {name: int((module.gate != 0).sum()) for name, module in modules.items()}
    assert {stored[f"{name}.gate"].numel() for name in modules} == {3, 4, 5, 6}
    if not boost:
        assert stored_parameters(counts) == sum(
            nnz * (modules[name].A.shape[1] + len(modules[name].B) + 1) for name, nnz in alive.items()
        )
    assert stored_parameters(counts) == sum(value.numel() for value in stored.values() if value.dtype != torch.uint8)
    assert stored["directions"].numel() == -(-6 * len(modules) // 8)
    again = attach(miniature("roberta"), "sora", rank=6, **boost)
    again.load_stored(stored, attached.stored_head())
    for name, module in modules.items():
        assert torch.equal(again.modules[name].gate, module.gate)
        left, right = module.factors()
        torch.testing.assert_close(again.modules[name].factors()[0] @ again.modules[name].factors()[1], left @ right)
    with pytest.raises(InputError, match="one bit for each"):
        again.load_stored(stored | {"directions": torch.zeros(1, dtype=torch.uint8)}, attached.stored_head())


def test_the_gate_penalty_is_the_mean_of_all_gates():
    attached = attach(miniature("roberta"), "sora", rank=4, gate_penalty=10.0)
    gates = torch.cat([module.gate for module in attached.modules.values()])
    assert float(attached.penalty().detach()) == pytest.approx(10 * float(gates.abs().mean().detach()), rel=1e-6)


def test_a_gated_pair_is_the_plain_product():
    attached = attach(miniature("roberta"), "sora", rank=4, **{"boost.d": 2})
    module = next(iter(attached.modules.values()))
    with torch.no_grad():
        module.B.normal_()
    x = torch.randn(5, module.A.shape[1])
    a, b = module.mask_A.masks * module.A, module.mask_B.masks * module.B
    plain = sum(F.linear(F.linear(x, a[i]) * module.gate, b[i]) for i in range(2))
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-5)


def test_in_levels_the_threshold_rises_from_zero_and_the_rate_starts_again():
    """T = 20, dense and three levels of five steps each; the rate falls from its peak in each."""
    run = make_run("sora:rank=4,threshold=0.3,levels=3", steps=20, learning_rate=0.02, warmup=0.0)
    gates = [module.gate for module in run.attached.modules.values()]
    moved = []
    plain = type(run.optimizer).step

    def step(optimizer, *arguments):
        plain(optimizer, *arguments)
        moved.append(torch.cat(gates).detach().clone())

    run.optimizer.step = partial(step, run.optimizer)
    for index, record in enumerate(record for record in train(run) if record.event == "step"):
        assert record.learning_rate == pytest.approx(0.02 * (1 - index % 5 / 5))
        assert {group["lr"] for group in run.optimizer.param_groups} == {record.learning_rate}
        xi = 0.1 * (index // 5)
        torch.testing.assert_close(torch.cat(gates), moved[-1].sign() * (moved[-1].abs() - xi).clamp_min(0))
    assert len(moved) == 20
    with pytest.raises(InputError, match="more than 3 steps"):
        make_run("sora:rank=4,levels=3", steps=3)


@pytest.mark.parametrize("code", [False, True])
def test_the_wider_dead_zone_is_twice_xi_and_the_rest_shrinks_by_xi(code):
    attached = attach(miniature("roberta"), "sora", rank=4, threshold=0.1, sora_code=code)
    module = next(iter(attached.modules.values()))
    with torch.no_grad():
        module.gate.copy_(torch.tensor([0.05, 0.15, -0.19, -0.5]))
    for act in attached.after_step:
        act(0, None)
    expected = [0.0, 0.0, 0.0, -0.4] if code else [0.0, 0.05, -0.09, -0.4]
    torch.testing.assert_close(module.gate.detach(), torch.tensor(expected))


def test_sora_starts_with_standard_normal_gates_and_a_zero_b():
    attached = attach(miniature("roberta"), "sora", rank=16)
    gates = torch.cat([module.gate.detach() for module in attached.modules.values()])
    assert float(gates.std()) == pytest.approx(1.0, abs=0.12) and abs(float(gates.mean())) < 0.15
    for module in attached.modules.values():
        bound = module.A.shape[1] ** -0.5
        assert module.B.eq(0).all() and 0.9 * bound < float(module.A.detach().abs().max()) <= bound
