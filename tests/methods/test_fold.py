"""The parts of a fold: products on slots' rows and their gradients, and what cannot be folded."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from peft_core.methods import Fold, get_method, obstacle, resolve
from peft_core.methods._fold_products import multiplied, stacked
from peft_core.methods._fold_rows import Part, added_rows, folded_map
from peft_core.methods._fold_slots import Slots
from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import Bottleneck, KeyedDropout, LowRank
from peft_core.records import MethodSpec
from peft_core.training.folding import not_row_by_row
from peft_core.training.problems import Encoded
from tests.conftest import batch_for, miniature


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("known", [True, False])
def test_the_gradient_of_a_folded_map(known):
    """Two parts of 3 slots, one of them at some of the output features, of a map that is known or was called."""
    weight, bias = drawn(5, 4, seed=1).detach(), drawn(5, seed=2).detach()
    factors = [drawn(2, 3, 4, seed=3), drawn(2, 5, 3, seed=4), drawn(1, 2, 4, seed=5), drawn(1, 2, 2, seed=6)]

    def product(x, *factors):
        parts = [Part(0, 2, 0, *factors[:2]), Part(2, 3, 1, *factors[2:])]
        if known:
            return folded_map(x, weight, bias, None, 3, parts)
        return folded_map(x, None, None, x @ weight.T + bias, 3, parts)

    x = drawn(6, 2, 4, seed=7)
    assert gradcheck(product, (x, *factors))
    expected = x @ weight.T + bias
    low = torch.cat([x[:2] @ factors[0][0].T @ factors[1][0].T, x[2:4] @ factors[0][1].T @ factors[1][1].T])
    some = x[4:] @ factors[2][0].T @ factors[3][0].T
    torch.testing.assert_close(product(x, *factors)[:4], expected[:4] + low)
    torch.testing.assert_close(product(x, *factors)[4:], expected[4:] + nn.functional.pad(some, (1, 2)))


@pytest.mark.parametrize("in_place", [True, False])
def test_the_gradient_of_rows_that_are_added_to(in_place):
    """Whole rows in one slot, one vector for all rows of another."""

    def summed(x, rows, vector):
        return added_rows(x * 1, 3, [(0, 1, rows), (1, 3, vector)], in_place)

    inputs = drawn(6, 2, 4), drawn(1, 2, 2, 4, seed=1), drawn(2, 1, 1, 4, seed=2)
    assert gradcheck(summed, inputs)
    kept = inputs[0].detach().clone()
    summed(*inputs)
    assert torch.equal(inputs[0], kept)


def low_rank(rank: int, boost: BoostConfig | None, scale: float, gated: bool = False) -> LowRank:
    a, b = (transform(shape, boost, "site", role, rank) for shape, role in (((rank, 6), "A"), ((4, rank), "B")))
    gate = drawn(rank, seed=9).detach() if gated else None
    module = LowRank(
        a, b, drawn(rank, 6).detach(), drawn(4, rank, seed=1).detach(), scale, KeyedDropout(0, "site"), gate
    )
    return module.double()


def test_pairs_of_all_forms_and_sizes_are_multiplied_together():
    boosts = [None, BoostConfig(d=2), BoostConfig(d=9, sparsity=0.3), BoostConfig(d=2, masks="dropout"), None, None]
    modules = [low_rank(2 + at % 3, boost, 1.0 + at, gated=at == 4) for at, boost in enumerate(boosts)]
    modules.insert(2, low_rank(3, BoostConfig(d=2), 5.0))
    modules[5].eval()
    x = drawn(len(modules), 3, 6, seed=5)
    found = multiplied([module.pair() for module in modules], x)
    for answer, module, rows in zip(found, modules, x, strict=True):
        torch.testing.assert_close(answer, module(rows))
    assert stacked([module.pair() for module in modules])[0].shape == (7, 9 * 4, 6)


def test_bottlenecks_are_multiplied_together():
    modules = []
    for width, boost, copies in ((2, None, 1), (3, BoostConfig(d=2), 2)):
        shapes = ((width, 6), "V"), ((6, width), "U")
        down, up = (transform(shape, boost, "place", role, 0) for shape, role in shapes)
        module = Bottleneck(down, up, *(drawn(*shape).detach() for shape, _ in shapes), "gelu", copies).double()
        nn.init.normal_(module.b_V)
        nn.init.normal_(module.b_U)
        modules.append(module)
    x = drawn(2, 3, 6)
    found = multiplied([module.pair() for module in modules], x)
    for answer, module, rows in zip(found, modules, x, strict=True):
        torch.testing.assert_close(answer, module(rows))


def attach(backbone, method: str, seed: int = 0):
    spec = MethodSpec.parse(method)
    return get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(seed))


def test_a_fold_leaves_the_backbone_as_it_was():
    backbone = miniature("deberta_v2")
    batch = batch_for(backbone)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in backbone.model.modules()]
    before, names = backbone.logits(batch), {path: set(vars(module)) for path, module in backbone.model.named_modules()}
    attachments = [
        attach(backbone, method) for method in ("lora:rank=2", "prefix:length=2", "adapter_houlsby:bottleneck=2")
    ]
    with pytest.raises(RuntimeError, match="does not hold those of 3 runs"), Fold(attachments).active():
        backbone.logits({name: values[:4] for name, values in batch.items()})
    assert names == {path: set(vars(module)) for path, module in backbone.model.named_modules()}
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in backbone.model.modules()]
    assert torch.equal(backbone.logits(batch), before)


def test_slots_say_whose_rows_are_there():
    slots = Slots(4)
    assert [stretch.slots for stretch in slots.stretches(lambda slot: slot > 1)] == [(0, 1), (2, 3)]
    with slots.only((2,)):
        assert slots.narrowed and [stretch.first for stretch in slots.stretches(lambda slot: slot)] == [0]
    assert slots.now == (0, 1, 2, 3) and not slots.narrowed


def test_what_cannot_be_folded_says_why():
    backbone = miniature("roberta")
    assert obstacle(attach(backbone, "full")) == "trains the backbone's own weights"
    odd = attach(backbone, "lora:rank=2")
    odd.override(("roberta.embeddings.word_embeddings.weight",))
    odd.overrides["roberta.embeddings.word_embeddings.weight"] = nn.Parameter(torch.zeros(60))
    assert obstacle(odd) == (
        "trains roberta.embeddings.word_embeddings.weight, "
        "and runs cannot each have their own in a module of type Embedding"
    )
    assert obstacle(attach(backbone, "bitfit")) is None


class Experts(nn.Module):
    """Gives some of the tokens to a map, as their values say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expert = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = x[..., 0] > 0
        return x.masked_scatter(chosen.unsqueeze(-1), self.expert(x[chosen]))


def test_modules_that_do_not_take_a_batch_row_by_row_are_found():
    backbone = miniature("roberta")
    backbone.model.roberta.encoder.layer[0].intermediate.intermediate_act_fn = Experts(64)
    tokens = torch.randint(4, 60, (12, 7), generator=torch.Generator().manual_seed(0)).tolist()
    rows = Encoded({"input_ids": tokens}, None, torch.zeros(12), {"input_ids": 1})
    found = not_row_by_row(backbone, rows)
    assert found == {"roberta.encoder.layer.0.intermediate.intermediate_act_fn.expert"}
    shared = not_row_by_row(miniature("deberta_v2"), rows)
    assert "deberta.encoder.LayerNorm" in shared and "deberta.encoder.layer.0.output.dense" not in shared
