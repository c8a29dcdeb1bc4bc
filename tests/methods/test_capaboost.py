"""CapaBoost against a plain implementation: d dense copies of the weights, gradients summed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peft_core.backbones import initial_head
from peft_core.methods import get_method, list_methods, resolve
from peft_core.metrics.rank import rank_of_factors
from peft_core.records import MethodSpec
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach, loss_of, take_steps


class TiedCopies:
    """d copies of A and B, masked before every step; masked branch gradients are summed and the sum goes to all."""

    def __init__(self, a, b, masks_a, masks_b, rate):
        self.masks = (masks_a, masks_b)
        self.dense = [torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone())]
        self.optimizer = torch.optim.AdamW(self.dense, lr=rate, weight_decay=0.01)

    def step(self, loss_of_update):
        copies = [
            [(dense.detach() * mask).requires_grad_() for mask in masks]
            for dense, masks in zip(self.dense, self.masks, strict=True)
        ]
        loss = loss_of_update(sum(b @ a for a, b in zip(*copies, strict=True)))
        loss.backward()
        for dense, branch, masks in zip(self.dense, copies, self.masks, strict=True):
            dense.grad = sum(copy.grad * mask for copy, mask in zip(branch, masks, strict=True))
        self.optimizer.step()


# In float64: in float32 the two orders of summation differ by 1e-6 after 20 divisions by Adam's second moment.
@pytest.mark.parametrize(("d", "sparsity"), [(1, 0.5), (2, 0.5), (4, 0.7)])
def test_training_equals_tied_copies_with_summed_gradients(d, sparsity):
    from peft_core.methods._masks import BoostConfig, MaskedCopies
    from peft_core.methods._modules import KeyedDropout, LowRank

    generator = torch.Generator().manual_seed(0)
    x, target = (torch.randn(64, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    boost = BoostConfig(d=d, sparsity=sparsity)
    masks = [MaskedCopies(shape, boost, "s", role, 0) for shape, role in (((4, 24), "A"), ((24, 4), "B"))]
    start = torch.randn(4, 24, generator=generator, dtype=torch.float64) * 0.2
    module = LowRank(*masks, start.clone(), torch.zeros(24, 4), 1.0, KeyedDropout(0.0)).double()
    oracle = TiedCopies(start, torch.zeros(24, 4, dtype=torch.float64), masks[0].masks, masks[1].masks, 1e-2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.01)
    for _ in range(20):
        F.mse_loss(module(x), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        oracle.step(lambda update: F.mse_loss(x @ update.T, target))
    torch.testing.assert_close(module.A, oracle.dense[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(module.B, oracle.dense[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("boosted", ["capaboost_lora", "capaboost_pfeiffer", "capaboost_houlsby"])
def test_one_branch_without_zeros_is_the_base_method_bit_for_bit(boosted):
    base = boosted.replace("capaboost_", "adapter_") if boosted != "capaboost_lora" else "lora"
    ours, plain = attach(miniature("roberta"), boosted, d=1, sparsity=0.0), attach(miniature("roberta"), base)
    assert take_steps(ours, 4) == take_steps(plain, 4)
    for name, parameter in plain.trainable().items():
        assert torch.equal(parameter, ours.trainable()[name])


BOOSTED = ["lora", "adalora", "sora", "increlora", "r_lora", "gm_lora", "rm_lora"]


def test_these_methods_take_capaboost_over_them():
    assert [method.id for method in list_methods() if method.boosts] == [
        method.id for method in list_methods() if "boost" in method.Config.model_fields
    ]
    assert {method.id for method in list_methods() if method.boosts} == set(BOOSTED)


@pytest.mark.parametrize("method_id", BOOSTED)
def test_boosted_by_one_branch_without_zeros_it_is_the_method_bit_for_bit(method_id):
    options = {"target_rank": 2} if method_id in ("adalora", "increlora") else {"rank": 4}
    runs = [attach(miniature("roberta"), method_id, **options, **boost) for boost in ({}, NOTHING)]
    losses = [take_steps(run, 8) for run in runs]
    assert losses[0] == losses[1]
    plain, boosted = (run.trainable() for run in runs)
    assert plain.keys() == boosted.keys() and all(torch.equal(plain[name], boosted[name]) for name in plain)


NOTHING = {"boost.d": 1, "boost.sparsity": 0.0}


@pytest.mark.parametrize("masks", ["random", "2:4", "same", "dropout"])
def test_lora_boosted_is_capaboost_lora_bit_for_bit(masks):
    named = attach(miniature("roberta"), "capaboost_lora", rank=4, d=3, masks=masks, dropout=0.1)
    boosted = attach(miniature("roberta"), "lora", rank=4, dropout=0.1, **{"boost.d": 3, "boost.masks": masks})
    assert take_steps(named, 4) == take_steps(boosted, 4)
    ours, theirs = named.trainable(), boosted.trainable()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert named.counts == boosted.counts


@pytest.mark.parametrize(
    ("method_id", "options", "rank"),
    [
        ("lora", {"rank": 4}, 4),
        ("capaboost_lora", {"rank": 4, "d": 2}, 8),
        ("capaboost_lora", {"rank": 4, "d": 4}, 16),
        ("capaboost_lora", {"rank": 4, "d": 3, "masks": "same"}, 4),
        ("capaboost_lora", {"rank": 4, "d": 2, "masks": "2:4"}, 8),
        ("capaboost_lora", {"rank": 12, "d": 3}, 32),
        ("full", {}, None),
    ],
)
def test_the_trained_rank_is_that_of_the_materialised_update(method_id, options, rank):
    attached = attach(miniature("roberta"), method_id, **options)
    take_steps(attached, 5)
    attached.train(False)
    for update in attached.updates():
        delta = update.delta if update.delta is not None else update.left.double() @ update.right.double()
        expected = int(torch.linalg.matrix_rank(delta.detach().double()))
        if update.left is not None:
            assert rank_of_factors(update.left.detach(), update.right.detach()).numerical == expected
            assert expected == rank <= update.bound


def test_a_very_sparse_mask_loses_rank():
    attached = attach(miniature("roberta"), "capaboost_lora", rank=4, d=2, sparsity=0.99)
    take_steps(attached, 3)
    attached.train(False)
    ranks = [rank_of_factors(u.left.detach(), u.right.detach()).numerical for u in attached.updates()]
    assert max(ranks) < 8


def test_a_weight_that_no_mask_keeps_gets_no_gradient():
    attached = attach(miniature("roberta"), "capaboost_lora", rank=4, d=2, sparsity=0.7)
    take_steps(attached, 1)
    attached.train()
    loss_of(attached).backward()
    for module in attached.modules.values():
        assert module.A.grad[~module.mask_A.union()].eq(0).all() and module.B.grad[~module.mask_B.union()].eq(0).all()
        assert module.B.grad[module.mask_B.union()].ne(0).any()


@pytest.mark.parametrize("family", ["roberta", "vit"])
def test_merging_the_update_into_the_weight_gives_the_same_output(family):
    backbone = miniature(family)
    attached = attach(backbone, "capaboost_lora", sites="six")
    take_steps(attached, 3)
    attached.train(False)
    batch = batch_for(backbone)
    with attached.active():
        expected = backbone.logits(batch)
    merged = miniature(family)
    sites = {site.name: site for site in merged.sites("six")}
    for update in attached.updates():
        weight = merged.model.get_parameter(f"{sites[update.site].module}.weight")
        with torch.no_grad():
            weight += update.left @ update.right
    head = attach(merged, "head")
    head.load_stored({}, attached.stored_head())
    with head.active():
        torch.testing.assert_close(merged.logits(batch), expected, rtol=1e-4, atol=1e-5)


def test_the_output_bias_is_added_once_or_once_a_branch():
    backbone = miniature("roberta")
    once, each = (attach(backbone, "capaboost_pfeiffer", d=3, output_bias=kind) for kind in ("once", "each"))
    for attached, copies in ((once, 1), (each, 3)):
        module = next(iter(attached.modules.values()))
        with torch.no_grad():
            module.b_U.fill_(1.0)
            module.U.zero_()
        torch.testing.assert_close(module(torch.zeros(2, 32)), torch.full((2, 32), float(copies)))


def test_dropout_draws_by_row_so_that_micro_batches_see_the_same():
    backbone = miniature("roberta")
    attached = attach(backbone, "capaboost_lora", dropout=0.5)
    take_steps(attached, 2)
    attached.train()
    module = next(iter(attached.modules.values()))
    x = torch.randn(6, 5, 32)
    attached.begin_rows(3, 0)
    whole = module(x)
    parts = []
    for start in (0, 3):
        attached.begin_rows(3, start)
        parts.append(module(x[start : start + 3]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-6)
    attached.begin_rows(4, 0)
    assert not torch.allclose(module(x), whole)
    attached.train(False)
    assert torch.equal(module(x), module(x))


def test_a_rank_above_the_layer_is_refused():
    from peft_core.records import InputError

    config = resolve(MethodSpec(id="lora", options={"rank": 33}))
    with pytest.raises(InputError, match="at most 32"):
        get_method("lora").attach(miniature("roberta"), config, torch.Generator())
    assert initial_head(miniature("roberta"), 0)
