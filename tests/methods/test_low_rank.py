"""The low-rank pair: its scale, its first values, its dropout, and which of its parameters decay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.training.optimizer import split_groups
from tests.conftest import miniature
from tests.methods.test_contract import attach


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1.0), ({"alpha": 8}, 2.0), ({"alpha": 8, "use_rslora": True}, 4.0), ({"use_rslora": True}, 2.0)],
)
def test_the_scale_is_alpha_over_the_rank_or_its_root(options, scale):
    module = next(iter(attach(miniature("roberta"), "lora", rank=4, **options).modules.values()))
    with torch.no_grad():
        module.B.normal_()
    x = torch.randn(3, 32)
    torch.testing.assert_close(module(x), scale * x @ module.A.T @ module.B.T)


@pytest.mark.parametrize(("bound", "expected"), [("in", 32**-0.5), ("rank", 8**-0.5)])
def test_the_first_a_is_uniform_within_its_bound(bound, expected):
    attached = attach(miniature("roberta"), "capaboost_lora", rank=8, a_bound=bound)
    values = torch.cat([module.A.detach().flatten() for module in attached.modules.values()])
    assert 0.99 * expected < float(values.abs().max()) <= expected
    assert float(values.std()) == pytest.approx(expected / 3**0.5, rel=0.05)
    assert all(module.B.eq(0).all() for module in attached.modules.values())


@pytest.mark.parametrize("method_id", ["capaboost_lora", "sora"])
def test_every_branch_draws_its_own_dropout_and_the_sum_is_no_mean(method_id):
    names = ("d", "sparsity") if method_id == "capaboost_lora" else ("boost.d", "boost.sparsity")
    options = dict(zip(names, (3, 0.5), strict=True))
    attached = attach(miniature("roberta"), method_id, rank=4, alpha=8, dropout=0.5, **options)
    module = next(iter(attached.modules.values()))
    with torch.no_grad():
        module.B.normal_()
    attached.train()
    x = torch.randn(6, 5, 32)
    seen = [module.dropout(x, branch) for branch in range(3)]
    assert not any(torch.equal(seen[i], seen[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    gate = 1 if module.gate is None else module.gate
    a, b = module.mask_A.masks * module.A, module.mask_B.masks * module.B
    plain = sum(F.linear(F.linear(seen[i], a[i]) * gate, b[i]) for i in range(3)) * 2
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-5)


def test_dropout_draws_for_every_row_position_and_feature():
    attached = attach(miniature("roberta"), "lora", rank=4, dropout=0.25)
    attached.train()
    dropout = next(iter(attached.modules.values())).dropout
    ones = torch.ones(8, 7, 32)
    kept = dropout(ones)
    assert kept.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(kept.ne(0).float().mean()) == pytest.approx(0.75, abs=0.03)
    for axis in range(3):
        slices = [tuple(part.flatten().tolist()) for part in kept.unbind(axis)]
        assert len(set(slices)) == len(slices), "no two rows, positions or features are dropped alike"
    assert torch.equal(dropout(ones[:, :3]), kept[:, :3]), "whatever the padding"


def test_vectors_do_not_decay():
    for method_id in ("sora", "adapter_pfeiffer", "bitfit"):
        attached = attach(miniature("roberta"), method_id)
        named = attached.trainable()
        decay = {id(p): group["weight_decay"] for group in split_groups(named, 0.1, {}) for p in group["params"]}
        for name, parameter in named.items():
            vector = name.endswith(("gate", "b_V", "b_U", "bias"))
            assert decay[id(parameter)] == (0.0 if vector else 0.1), name
        assert {0.0, 0.1} == set(decay.values())
