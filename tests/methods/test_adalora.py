"""AdaLoRA against tables by hand: scores and what they zero, the penalty, the first values, the defaults."""

from __future__ import annotations

import pytest
import torch

from peft_core.methods import get_method, resolve
from peft_core.methods.adalora import Allocator, Config, Schedule, direction_scores
from peft_core.records import MethodSpec
from tests.conftest import batch_for, miniature
from tests.methods.family_checks import lively
from tests.methods.test_contract import attach, loss_of

SENSITIVITY = {  # of two maps with two directions each: lambda, rows of A, columns of B
    0: {"gate": [1.0, 2.0], "A": [[1.0, 3.0], [0.0, 2.0]], "B": [[4.0, 0.0], [2.0, 2.0]]},
    1: {"gate": [2.0, 0.0], "A": [[0.0, 0.0], [6.0, 2.0]], "B": [[1.0, 1.0], [0.0, 9.0]]},
}
UNCERTAINTY = {
    0: {"gate": [2.0, 1.0], "A": [[1.0, 1.0], [5.0, 0.5]], "B": [[1.0, 7.0], [1.0, 0.5]]},
    1: {"gate": [0.5, 3.0], "A": [[9.0, 9.0], [0.5, 1.0]], "B": [[2.0, 1.0], [8.0, 1.0]]},
}
SCORES = [[2 + 2 + 3, 2 + 0.5 + 0.5], [1 + 0 + 1, 0 + 2.5 + 5]]
"""I U of lambda, plus the mean over A's row of I U, plus the mean over B's column of I U: 7, 3, 2, 7.5."""


def two_maps(**options):
    """Two maps of two directions, all lambdas 1."""
    attached = attach(miniature("roberta"), "adalora", target_rank=1, initial_rank=2, **options)
    modules = list(attached.modules.values())[:2]
    for module in modules:
        module.A = torch.nn.Parameter(torch.ones(2, 2))
        module.B = torch.nn.Parameter(torch.ones(2, 2))
        module.gate = torch.nn.Parameter(torch.ones(2))
    allocator = Allocator(modules, Config(target_rank=1, initial_rank=2, warmup=0.0, final=9, interval=1))
    return allocator, modules


@pytest.mark.parametrize(
    ("target", "alive"), [(4, [[1, 1], [1, 1]]), (3, [[1, 1], [0, 1]]), (2, [[1, 0], [0, 1]]), (1, [[0, 0], [0, 1]])]
)
def test_the_lowest_scores_of_a_table_by_hand_lose_their_lambda(target, alive):
    allocator, modules = two_maps()
    allocator.schedule = Schedule(allocator.config, 10, 4, target)
    for index, importance in enumerate(allocator.importances):
        for name in ("gate", "A", "B"):
            importance.get_buffer(f"sensitivity_{name}").copy_(torch.tensor(SENSITIVITY[index][name]))
            importance.get_buffer(f"uncertainty_{name}").copy_(torch.tensor(UNCERTAINTY[index][name]))
    allocator.prune(9, None)
    assert [module.gate.tolist() for module in modules] == alive
    assert [direction_scores(importance).tolist() for importance in allocator.importances] == SCORES


@pytest.mark.parametrize("pre_step", [False, True])
def test_sensitivity_is_value_times_gradient_after_or_before_the_step(pre_step):
    attached = attach(miniature("roberta"), "adalora", target_rank=2, pre_step=pre_step, orthogonality=0.5)
    for hook in attached.on_start:
        hook(10)
    with torch.no_grad():
        for module in attached.modules.values():
            module.gate.fill_(0.5)
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=0.1, eps=1e-30)
    (loss_of(attached) + attached.penalty()).backward()
    module = next(iter(attached.modules.values()))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for act in attached.before_update:
        act(0, optimizer)
    optimizer.step()
    for act in attached.after_step:
        act(0, optimizer)
    for name, parameter in module.named_parameters():
        value = before[name] if pre_step else parameter.detach()
        s = (value * parameter.grad).abs()
        smooth, uncertain = (module.importance.get_buffer(f"{kind}_{name}") for kind in ("sensitivity", "uncertainty"))
        torch.testing.assert_close(smooth, 0.15 * s, rtol=1e-5, atol=0)
        torch.testing.assert_close(uncertain, 0.15 * (s - 0.15 * s), rtol=1e-5, atol=0)
        assert not torch.allclose(before[name], parameter.detach())


def test_the_penalty_is_the_mean_of_unsquared_norms_of_all_directions():
    attached = attach(miniature("roberta"), "adalora", target_rank=2, initial_rank=4, orthogonality=0.3)
    with torch.no_grad():
        for module in attached.modules.values():
            module.gate[1:] = 0.0
    norms = []
    for module in attached.modules.values():
        a, b = module.A.detach(), module.B.detach()
        norms += [torch.linalg.norm(a @ a.T - torch.eye(4)), torch.linalg.norm(b.T @ b - torch.eye(4))]
    assert float(attached.penalty().detach()) == pytest.approx(0.3 * float(torch.stack(norms).mean()), rel=1e-5)
    assert Config().orthogonality == 0.1


def test_factors_start_gaussian_and_lambda_at_zero():
    attached = attach(miniature("roberta"), "adalora", target_rank=8, initial_rank=16)
    for role in ("A", "B"):
        values = torch.cat([getattr(module, role).detach().flatten() for module in attached.modules.values()])
        assert float(values.std()) == pytest.approx(0.02, rel=0.05) and abs(float(values.mean())) < 1e-3
        assert float(values.abs().max()) > 0.05, "not uniform"
    assert all(module.gate.eq(0).all() for module in attached.modules.values())


@pytest.mark.parametrize(("total", "first", "last", "interval"), [(1000, 100, 700, 10), (50, 5, 35, 1)])
def test_the_phases_scale_with_the_run(total, first, last, interval):
    schedule = Schedule(Config(), total, 36, 12)
    assert (schedule.first, schedule.last, schedule.interval) == (first, last, interval)
    assert Config(target_rank=8).initial == 12 and Config(target_rank=3).initial == 5


@pytest.mark.parametrize("batch_rows", [1, 6])
@pytest.mark.parametrize("method", ["adalora:target_rank=4", "increlora:target_rank=4"])
def test_the_query_s_update_may_leave_out_the_relative_positions(method, batch_rows):
    """As the authors' GLUE code on DeBERTa: for the query, a hook on the first use of its map, the content."""
    answers = {}
    for option in ("", ",bypass_positions=true"):
        backbone = lively("deberta_v2")
        spec = MethodSpec.parse(method + option)
        attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(1))
        with torch.no_grad():
            for number, parameter in enumerate(attached.trainable().values()):
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(number))
        attached.train(False)
        batch = batch_for(backbone, rows=batch_rows)
        with torch.no_grad(), attached.active():
            answers[option] = backbone.features(batch)
    answers["by hand"] = _by_hand(attached, batch)
    torch.testing.assert_close(answers[",bypass_positions=true"], answers["by hand"], rtol=1e-4, atol=1e-5)
    assert (answers[""] - answers["by hand"]).abs().max() > 1e-3


@torch.no_grad()
def _by_hand(attached, batch):
    backbone, handles = attached.backbone, []
    updates = {update.site: update.left @ update.right for update in attached.updates()}
    for site in backbone.sites("six"):
        uses = []

        def add(module, args, output, site=site, uses=uses):
            uses.append(site.role)
            return output if site.role == "q" and len(uses) > 1 else output + args[0] @ updates[site.name].T

        handles.append(backbone.model.get_submodule(site.module).register_forward_hook(add))
    try:
        return backbone.features(batch)
    finally:
        for handle in handles:
            handle.remove()
