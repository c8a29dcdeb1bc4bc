"""A growing run: its reserves, its clocks, its ablations, and what of it is stored, resumed and counted."""

from __future__ import annotations

import itertools

import pytest
import torch

from peft_core.budget import budget
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.records import InputError, MethodSpec
from peft_core.training.loop import train
from peft_core.training.problems import predict
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach
from tests.methods.test_increlora import MAPS, SMALL, TARGET, grown, ranks, stepped
from tests.miniatures import CORE
from tests.training import test_loop
from tests.training.test_loop import DATA, make_run

# --- reserves, clocks, ablations ---


@pytest.mark.parametrize("reserve", [1, 2])
def test_a_reserve_waits_at_a_frozen_lambda_then_trains_and_is_silent_in_the_end(reserve):
    run = make_run(f"{SMALL},top_h=2,reserve={reserve}")
    born: dict[str, int] = {}
    for step in stepped(run):
        for name, module in run.attached.modules.items():
            assert len(module.parts) == module.rank + reserve
            for index, part in enumerate(module.parts):
                waits, gate = index >= module.rank, f"adapter.{name}.components.{index}.gate"
                assert isinstance(part.gate, torch.nn.Parameter) != waits
                assert (gate in run.parameters) != waits
                assert {f"adapter.{name}.components.{index}.{role}" for role in "AB"} <= set(run.parameters)
                if waits:
                    done = step > run.attached.before_update[0].__self__.schedule.last
                    assert float(part.gate) == pytest.approx(0.0 if done else 1e-5, rel=1e-6)
                elif index and born.setdefault(gate, step) == step:
                    assert float(part.gate.detach()) == pytest.approx(1e-5, rel=1e-6), "activation keeps the value"
                elif index and step > born[gate] + 2:
                    assert abs(float(part.gate.detach()) - 1e-5) > 1e-6
    assert len(born) == TARGET - MAPS


def test_every_new_group_restarts_its_clock():
    run = make_run(f"{SMALL},top_h=2", learning_rate=0.01, warmup=0.25)
    seen: dict[str, list[tuple[int, float]]] = {}
    for step in stepped(run):
        rates = {id(p): group["lr"] for group in run.optimizer.param_groups for p in group["params"]}
        for name, parameter in run.parameters.items():
            if parameter in run.optimizer.state:
                seen.setdefault(name, []).append((step, rates[id(parameter)]))
    starts = set()
    for name, curve in seen.items():
        first = curve[0][0]
        if first == 0:
            expected = [0.01 * min((s + 1) / 5, (20 - s) / 15) for s, _ in curve]
        else:
            starts.add(first - 1)
            expected = [0.01 * min((s - first + 1) / 2, (20 - s) / (20 - first - 1)) for s, _ in curve]
        assert [rate for _, rate in curve] == pytest.approx(expected), name
    assert starts == {0, 2, 4, 6, 8}, "the first reserves and one clock for every round"


def test_without_a_restart_all_follow_the_global_curve():
    run = make_run(f"{SMALL},top_h=2,restart_warmup=false")
    for _ in stepped(run):
        moved = [group for group in run.optimizer.param_groups if group["params"][0] in run.optimizer.state]
        assert len({group["lr"] for group in moved}) == 1
    assert len(moved) > 4
    assert sum(ranks(run.attached)) == TARGET


def test_without_advance_learning_a_reserve_rests_until_it_is_activated():
    run = make_run(f"{SMALL},top_h=2,advance_learning=false")
    fresh, moved = {}, set()
    for _ in stepped(run):
        for name, module in run.attached.modules.items():
            for index, part in enumerate(module.parts):
                key = (name, index)
                values = torch.cat([part.A.detach().flatten(), part.B.detach().flatten()])
                first = fresh.setdefault(key, values)
                if index >= module.rank:
                    assert not part.A.requires_grad and not part.B.requires_grad and float(part.gate) == 0
                    assert torch.equal(values, first)
                elif not torch.equal(values, first):
                    moved.add(key)
    assert len(moved) == TARGET


def test_the_penalty_is_of_the_whole_stacks_and_can_be_left_out():
    attached = grown("roberta", orthogonality=0.3)
    norms = []
    for module in attached.modules.values():
        a = torch.cat([part.A for part in module.parts]).detach()
        b = torch.cat([part.B for part in module.parts], 1).detach()
        assert len(a) == module.rank + 1
        norms += [torch.linalg.norm(a @ a.T - torch.eye(len(a))), torch.linalg.norm(b.T @ b - torch.eye(len(a)))]
    assert float(attached.penalty().detach()) == pytest.approx(0.3 * float(torch.stack(norms).mean()), rel=1e-5)
    assert attach(miniature("roberta"), "increlora", orthogonality=0).penalty is None


# --- storing, resuming, counting ---


@pytest.mark.parametrize("options", [{}, {"boost.d": 2}, {"boost.d": 2, "boost.masks": "dropout"}])
@pytest.mark.parametrize("family", CORE)
def test_only_active_components_are_stored_and_answer_alike(family, options):
    attached = grown(family, **options)
    sites = len(attached.modules)
    assert sum(ranks(attached)) == 3 * sites == attached.total_rank and len(set(ranks(attached))) > 1
    stored = attached.stored()
    assert [stored[f"{name}.gate"].numel() for name in attached.modules] == ranks(attached)
    size = sum(value.numel() for value in stored.values())
    assert size == attached.active_parameters() == sum(count.kept for count in attached.counts)
    if not options:
        assert size == sum(m.rank * (m.site.in_features + m.site.out_features + 1) for m in attached.modules.values())
    again = attach(miniature(family), "increlora", target_rank=3, sites="six", **options)
    again.load_stored(stored, attached.stored_head())
    again.train(False)
    batch = batch_for(attached.backbone)
    outputs = []
    for one in (attached, again):
        with one.active():
            outputs.append(one.backbone.logits(batch))
    assert torch.equal(*outputs)


def test_the_update_is_the_formula_of_the_active_components():
    attached = grown("roberta", alpha=5.0)
    for update, module in zip(attached.updates(), attached.modules.values(), strict=True):
        active = module.parts[: module.rank]
        plain = sum(
            float(p.gate.detach()) * torch.outer(p.B.detach().flatten(), p.A.detach().flatten()) for p in active
        )
        torch.testing.assert_close(update.left @ update.right, plain * 5 / (module.rank + 1e-5))
        x = torch.randn(3, module.site.in_features)
        torch.testing.assert_close(module(x), x @ plain.T * 5 / (module.rank + 1e-5), rtol=1e-4, atol=1e-6)
        assert module.rank <= update.bound


def test_a_foreign_rank_pattern_is_refused():
    attached = grown("roberta")
    stored = attached.stored()
    site = next(iter(attached.modules))
    again = attach(miniature("roberta"), "increlora", target_rank=3)
    for broken in ({f"{site}.gate": torch.zeros(0)}, {f"{site}.B": torch.zeros(1)}, {"nothing": torch.zeros(1)}):
        with pytest.raises(InputError, match="adapter is"):
            again.load_stored(stored | broken, attached.stored_head())


@pytest.mark.parametrize(
    "options",
    [
        "",
        ",reserve=2,top_h=1",
        ",advance_learning=false",
        ",restart_warmup=false,boost.d=2",
        ",first_growth=2nu,top_h=2",
    ],
)
def test_a_run_that_grows_resumes_bit_for_bit(options, tmp_path):
    test_loop.test_a_resumed_run_continues_bit_for_bit(SMALL + options, tmp_path)


def test_selection_best_returns_to_the_ranks_of_the_best_evaluation():
    run = make_run(f"{SMALL},top_h=2", selection="best", eval_every=1)
    kept = {}
    for record in train(run):
        if record.event == "eval":
            kept[record.step] = ranks(run.attached), predict(run.attached, DATA.evaluation)
    first = min(step for step, (sizes, _) in kept.items() if sum(sizes) > MAPS)
    assert ranks(run.attached) == kept[run.best[0]][0]
    run = make_run(f"{SMALL},top_h=2", selection="best", eval_every=1)
    for _ in itertools.takewhile(lambda step: step < first, stepped(run)):
        pass
    run.best, run.best_extra = (first, 2.0), run.extra_state()
    run.best_tensors = {name: parameter.detach().clone() for name, parameter in run.parameters.items()}
    expected = ranks(run.attached), predict(run.attached, DATA.evaluation)
    list(train(run))
    assert ranks(run.attached) == expected[0]
    assert torch.equal(predict(run.attached, DATA.evaluation), expected[1])


def test_boosted_once_without_zeros_is_the_method_itself():
    curves = [test_loop.curve(train(make_run(f"{SMALL}{boost}"))) for boost in ("", ",boost.d=1,boost.sparsity=0")]
    plain, boosted = ([entry for entry in curve if len(entry) == 4] for curve in curves)
    assert plain == boosted


def test_what_multiplies_follows_the_growth():
    run = make_run(f"{SMALL},top_h=2")
    executed, nominal = [], []
    for _ in stepped(run):
        executed.append(adapter_flops_executed(run.attached.counts))
        nominal.append(adapter_flops_nominal(run.attached.counts))
    both = 2 * (32 + 32)
    assert nominal[0] == MAPS * both and executed[0] == 2 * MAPS * both
    assert nominal[-1] == executed[-1] == TARGET * both


def test_a_budget_is_at_the_target_with_ranks_spread_evenly():
    plain, boosted, lora = (
        budget("roberta-base", [MethodSpec.parse(f"{method},sites=six")])[0]
        for method in ("increlora:target_rank=4", "increlora:target_rank=4,boost.d=2", "lora:rank=4")
    )
    assert plain["weights"] == lora["weights"] and plain["trainable"] == lora["trainable"] + 72 * 4
    assert plain["flops_vs_lora"] == lora["flops_vs_lora"]
    assert plain["rank_bound"] == 72 * 3 + 1 and boosted["rank_bound"] == 2 * (72 * 3 + 1)
    assert boosted["weights"] == pytest.approx(0.75 * plain["weights"])
    assert boosted["trainable"] == pytest.approx(0.75 * plain["trainable"], rel=0.01)


@pytest.mark.parametrize(
    ("options", "field"),
    [("target_rank=769", "target_rank"), ("boost.masks=2:4", "boost.masks"), ("first_growth=3nu", "first_growth")],
)
def test_what_does_not_fit_is_named(options, field):
    with pytest.raises(InputError) as error:
        budget("roberta-base", [MethodSpec.parse(f"increlora:{options}")])
    assert error.value.field == f"increlora.{field}"
