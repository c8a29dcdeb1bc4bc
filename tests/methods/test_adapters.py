"""Bottleneck adapters: their nonlinearity, and CapaBoost's masks on them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import miniature
from tests.methods.test_contract import attach

BOOSTED = ["capaboost_pfeiffer", "capaboost_houlsby"]


@pytest.mark.parametrize(
    ("method_id", "family", "phi"),
    [
        ("adapter_houlsby", "roberta", F.silu),
        ("adapter_houlsby", "t5", F.silu),
        ("capaboost_houlsby", "roberta", F.silu),
        ("adapter_pfeiffer", "roberta", F.relu),
        ("adapter_pfeiffer", "t5", lambda x: F.gelu(x, approximate="tanh")),
    ],
)
def test_an_adapter_is_two_maps_with_the_papers_nonlinearity_between(method_id, family, phi):
    options = {"d": 1, "sparsity": 0.0} if method_id in BOOSTED else {}
    attached = attach(miniature(family), method_id, **options)
    module = next(iter(attached.modules.values()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    u = torch.randn(5, 32)
    torch.testing.assert_close(module(u), phi(u @ module.V.T + module.b_V) @ module.U.T + module.b_U)


@pytest.mark.parametrize("method_id", BOOSTED)
@pytest.mark.parametrize(("bias", "copies"), [("once", 1), ("each", 3)])
def test_branches_share_the_input_bias_and_the_output_bias_counts_once_or_each(method_id, bias, copies):
    attached = attach(miniature("roberta"), method_id, d=3, sparsity=0.5, output_bias=bias, nonlinearity="tanh")
    module = next(iter(attached.modules.values()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    u = torch.randn(5, 32)
    v, w = module.V * module.mask_V.masks, module.U * module.mask_U.masks
    plain = sum(torch.tanh(u @ v[i].T + module.b_V) @ w[i].T for i in range(3)) + copies * module.b_U
    torch.testing.assert_close(module(u), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method_id", "roles"), [("capaboost_lora", "AB"), *((name, "VU") for name in BOOSTED)])
def test_n_of_m_groups_lie_along_the_axis_that_is_contracted(method_id, roles):
    """The last axis of A (r, in), B (out, r), V (bn, h), U (h, bn): a weight's groups are multiplied by one input."""
    size = {"rank": 8} if method_id == "capaboost_lora" else {"bottleneck": 8}
    attached = attach(miniature("roberta"), method_id, masks="1:4", d=3, **size)
    for module in attached.modules.values():
        for role in roles:
            weight, masks = getattr(module, role), getattr(module, f"mask_{role}").masks
            assert masks.shape == (3, *weight.shape)
            assert masks.unflatten(2, (-1, 4)).sum(3).eq(1).all()
            columns = masks.transpose(1, 2).unflatten(2, (-1, 4)).sum(3)
            assert columns.ne(1).any(), "not along the other one"


@pytest.mark.parametrize("method_id", BOOSTED)
def test_same_and_dropout_masks_on_adapters(method_id):
    same = next(iter(attach(miniature("roberta"), method_id, masks="same", d=3).modules.values()))
    for mask in (same.mask_V, same.mask_U):
        assert all(torch.equal(mask.masks[0], other) for other in mask.masks) and not mask.masks.all()
    attached = attach(miniature("roberta"), method_id, masks="dropout", d=2, sparsity=0.75)
    module = next(iter(attached.modules.values()))
    drawn = []
    for step in range(2):
        for hook in attached.before_step:
            hook(step)
        drawn.append((module.mask_V.masks.clone(), module.mask_U.masks.clone()))
    assert not any(torch.equal(first, second) for first, second in zip(*drawn, strict=True))
    attached.train(False)
    torch.testing.assert_close(module.right(), 0.25 * torch.cat([module.V, module.V]))
    torch.testing.assert_close(module.left(), 0.25 * torch.cat([module.U, module.U], 1))
