"""RM-LoRA's parts: the penalty on known matrices, the directions that learn, and what `strict` holds still."""

from __future__ import annotations

import pytest
import torch

from peft_core.methods._orthogonality import gram_distance, squared_penalty, unsquared_penalty
from peft_core.records import InputError
from tests.conftest import miniature
from tests.methods.test_contract import attach, loss_of


@pytest.mark.parametrize(
    ("matrix", "distance"),
    [
        (torch.eye(3, 5), 0.0),
        (torch.zeros(4, 6), 4.0),
        (2 * torch.eye(2, 2), 18.0),
        (torch.ones(2, 3), 4 + 4 + 9 + 9.0),
    ],
)
def test_the_penalty_on_known_matrices(matrix, distance):
    assert float(gram_distance(matrix)) == pytest.approx(distance)
    pairs = [(matrix, torch.zeros(7, len(matrix)))]
    assert float(squared_penalty(pairs)) == pytest.approx(distance + len(matrix))
    assert float(unsquared_penalty(pairs)) == pytest.approx((distance**0.5 + len(matrix) ** 0.5) / 2, abs=1e-6)


def test_the_penalty_is_a_mean_over_pairs_times_gamma():
    attached = attach(miniature("roberta"), "r_lora", rank=4, orthogonality=0.5)
    values = [float((gram_distance(m.A) + gram_distance(m.B.T)).detach()) for m in attached.modules.values()]
    assert float(attached.penalty().detach()) == pytest.approx(0.5 * sum(values) / len(values), rel=1e-5)
    assert attach(miniature("roberta"), "gm_lora", rank=4).penalty is None


def stepped(method_id: str, steps: int, **options):
    """An attachment after some steps with all of its hooks, and what the last step saw."""
    attached = attach(miniature("roberta"), method_id, **options)
    with torch.no_grad():
        for module in attached.modules.values():
            module.B.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=1e-2, fused=True)
    for step in range(steps):
        before = {name: (m.A.detach().clone(), m.B.detach().clone()) for name, m in attached.modules.items()}
        (loss_of(attached) + (attached.penalty() if attached.penalty else 0)).backward()
        for hook in attached.after_backward:
            hook(step, optimizer)
        gradients = {name: (m.A.grad.clone(), m.B.grad.clone()) for name, m in attached.modules.items()}
        for hook in attached.before_update:
            hook(step, optimizer)
        optimizer.step()
        for hook in attached.after_step:
            hook(step, optimizer)
        optimizer.zero_grad()
    return attached, before, gradients, optimizer


@pytest.mark.parametrize(("method_id", "directions"), [("gm_lora", None), ("gm_lora", 1), ("rm_lora", 3)])
def test_exactly_these_directions_have_a_gradient_in_a_and_the_same_in_b(method_id, directions):
    _, _, gradients, _ = stepped(method_id, 2, rank=4, directions=directions)
    chosen = set()
    for a, b in gradients.values():
        rows, columns = a.ne(0).any(1), b.ne(0).any(0)
        assert torch.equal(rows, columns) and int(rows.sum()) == (directions or 2)
        chosen.add(tuple(rows.tolist()))
    assert len(chosen) > 1, "pairs draw for themselves"


def test_strict_moves_nothing_else():
    attached, before, gradients, optimizer = stepped("gm_lora", 4, rank=4, strict=True)
    for name, module in attached.modules.items():
        learned = gradients[name][0].ne(0).any(1)
        assert torch.equal(module.A[~learned], before[name][0][~learned])
        assert torch.equal(module.B[:, ~learned], before[name][1][:, ~learned])
        assert module.A[learned].ne(before[name][0][learned]).any()
        assert optimizer.state[module.A]["exp_avg"][learned].ne(0).any()


def test_without_strict_momentum_moves_the_others():
    attached, before, gradients, _ = stepped("gm_lora", 6, rank=4)
    moved = [
        m.A[~gradients[name][0].ne(0).any(1)].ne(before[name][0][~gradients[name][0].ne(0).any(1)]).any()
        for name, m in attached.modules.items()
    ]
    assert any(moved)


def test_more_directions_than_the_rank_are_refused():
    with pytest.raises(InputError, match="at most the rank"):
        attach(miniature("roberta"), "rm_lora", rank=4, directions=5)


def test_boosted_it_has_the_rank_of_all_branches():
    attached = attach(miniature("roberta"), "rm_lora", rank=4, **{"boost.d": 2})
    assert {update.bound for update in attached.updates()} == {8}
    assert attached.active_parameters() < attach(miniature("roberta"), "rm_lora", rank=4).active_parameters()


def test_the_unsquared_form_is_adaloras():
    attached = attach(miniature("roberta"), "rm_lora", rank=4, orthogonality=0.5, squared=False)
    pairs = [(m.A.detach(), m.B.detach()) for m in attached.modules.values()]
    norms = [torch.linalg.norm(rows @ rows.T - torch.eye(4)) for a, b in pairs for rows in (a, b.T)]
    assert float(attached.penalty().detach()) == pytest.approx(0.5 * float(torch.stack(norms).mean()), rel=1e-5)


def test_directions_are_drawn_anew_in_every_step():
    attached = attach(miniature("roberta"), "gm_lora", rank=4)
    seen: dict[str, list[tuple[bool, ...]]] = {name: [] for name in attached.modules}
    for step in range(16):
        for module in attached.modules.values():
            module.A.grad, module.B.grad = torch.ones_like(module.A), torch.ones_like(module.B)
        for act in attached.after_backward:
            act(step, None)
        for name, module in attached.modules.items():
            seen[name].append(tuple(module.A.grad.ne(0).any(1).tolist()))
    for patterns in seen.values():
        assert len(set(patterns)) > 3 and all(any(rows) for rows in zip(*patterns, strict=True))


def test_strict_keeps_the_moments_of_resting_directions():
    attached = attach(miniature("roberta"), "rm_lora", rank=4, strict=True)
    with torch.no_grad():
        for module in attached.modules.values():
            module.B.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=1e-2, fused=True)
    for step in range(5):
        before = {id(p): {k: v.clone() for k, v in optimizer.state[p].items()} for p in optimizer.state}
        (loss_of(attached) + attached.penalty()).backward()
        for act in (*attached.after_backward, *attached.before_update):
            act(step, optimizer)
        optimizer.step()
        rests = {name: ~m.A.grad.ne(0).any(1) for name, m in attached.modules.items()}
        for act in attached.after_step:
            act(step, optimizer)
        for name, module in attached.modules.items():
            for parameter, axis in ((module.A, 0), (module.B, 1)):
                for kind in ("exp_avg", "exp_avg_sq"):
                    now = optimizer.state[parameter][kind]
                    old = before.get(id(parameter), {}).get(kind, torch.zeros_like(now))
                    moved = now.ne(old).any(1 - axis)
                    assert torch.equal(moved, ~rests[name]), f"{kind} at step {step}"
        optimizer.zero_grad()


def test_a_starts_gaussian_and_b_at_zero():
    attached = attach(miniature("roberta"), "r_lora", rank=16, sites="six")
    values = torch.cat([module.A.detach().flatten() for module in attached.modules.values()])
    assert float(values.std()) == pytest.approx(0.02, rel=0.05) and float(values.abs().max()) > 0.05
    assert all(module.B.eq(0).all() for module in attached.modules.values())
