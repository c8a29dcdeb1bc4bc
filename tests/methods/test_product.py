"""The product with a backward pass of its own: against plain autograd in float64, and what it keeps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peft_core.methods._bits import pack_rows, unpack_rows
from peft_core.methods._masks import BoostConfig, transform
from peft_core.methods._modules import NONLINEARITIES, Bottleneck, KeyedDropout, LowRank
from peft_core.methods._product import FrozenMap, cheapest_way
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach, loss_of, take_steps

IN, OUT, RANK = 24, 20, 4
BOOSTS = [
    None,
    BoostConfig(d=2, sparsity=0.5),
    BoostConfig(d=3, masks="2:4"),
    BoostConfig(d=3, masks="same"),
    BoostConfig(d=2, masks="dropout", sparsity=0.25),
    BoostConfig(d=9, sparsity=0.7),
]


def pair(boost: BoostConfig | None, gated: bool = False, scale: float = 2.0, rank: int = RANK) -> LowRank:
    generator = torch.Generator().manual_seed(0)
    a, b, gate = (torch.randn(shape, generator=generator) for shape in ((rank, IN), (OUT, rank), (rank,)))
    masks = (transform(shape, boost, "s", role, 0) for shape, role in (((rank, IN), "A"), ((OUT, rank), "B")))
    return LowRank(*masks, a, b, scale, KeyedDropout(0.0), gate if gated else None).double()


def frozen_map() -> FrozenMap:
    generator = torch.Generator().manual_seed(1)
    return FrozenMap(*(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((OUT, IN), (OUT,))))


def given(rows: int = 6, needs: bool = True) -> torch.Tensor:
    x = torch.randn((rows, 3, IN), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return x.requires_grad_(needs)


def gradients(module: LowRank, inputs: list[torch.Tensor], forward) -> list[torch.Tensor | None]:
    """Outputs, then the gradients of all parameters and inputs, summed over the inputs."""
    outputs = [forward(x) for x in inputs]
    for y in outputs:
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    found = [value.grad for value in (*module.parameters(), *inputs)]
    for value in (*module.parameters(), *inputs):
        value.grad = None
    return [*outputs, *found]


@pytest.mark.parametrize("boost", BOOSTS, ids=str)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("way", ["kept", "again", "merged"])
@pytest.mark.parametrize("needs", [False, True])
def test_values_and_gradients_are_those_of_plain_autograd(boost, gated, way, needs):
    module, frozen = pair(boost, gated), frozen_map()
    left, right = lambda: module.left() * module.scale, module.right
    inputs = [given(6, needs), given(2, needs)]
    expected = gradients(module, inputs, lambda x: frozen(x) + F.linear(F.linear(x, right()), left()))
    module.way = way
    for one, two in zip(gradients(module, inputs, lambda x: module(x, frozen)), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    if way != "merged":
        alone = gradients(module, inputs, module)
        for one, two in zip(alone[2:], expected[2:], strict=True):
            if one is not None and one.shape != inputs[0].shape and one.shape != inputs[1].shape:
                torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone[0] + frozen(inputs[0]), expected[0], rtol=1e-12, atol=1e-12)


def test_no_tokens_give_no_output():
    """As for an expert that none of the tokens goes to."""
    module, frozen = pair(BOOSTS[1]), frozen_map()
    for y in (module(given(0)), module(given(0), frozen)):
        y.sum().backward()
        assert y.shape == (0, 3, OUT)
    assert not module.A.grad.any() and not module.B.grad.any()


@pytest.mark.parametrize("way", ["kept", "again", "merged"])
def test_gradients_are_those_of_finite_differences(way):
    module, frozen = pair(BoostConfig(d=2, sparsity=0.5), gated=True, rank=2), frozen_map()
    module.way = way
    assert torch.autograd.gradcheck(lambda x, a, b, g: module(x, frozen), (given(1), *module.parameters()))


@pytest.mark.parametrize("cols", [0, 1, 7, 8, 9, 64])
def test_masks_are_packed_into_bits(cols):
    masks = torch.rand((3, 5, cols), generator=torch.Generator().manual_seed(cols)) < 0.5
    packed = pack_rows(masks)
    assert packed.dtype == torch.uint8 and packed.shape == (3, 5, -(-cols // 8))
    assert torch.equal(unpack_rows(packed, cols, torch.bool), masks)
    assert torch.equal(unpack_rows(packed, cols, torch.float64), masks.double())


def kept_bytes(forward) -> int:
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        forward()
    return sum(kept.values())


@pytest.mark.parametrize(("rows", "way"), [(2, "kept"), (200, "again"), (200, "merged")])
@pytest.mark.parametrize("d", [2, 4, 8])
def test_nothing_is_kept_d_times_beyond_what_a_pair_and_its_parameters_take(rows, way, d):
    module, x = pair(BoostConfig(d=d, sparsity=0.5)), given(rows, False)
    frozen = frozen_map() if way == "merged" else None
    assert module.way_at(3 * rows, False, frozen is not None) == way
    kept = kept_bytes(lambda: module(x, frozen))
    parameters = RANK * (IN + OUT)
    masks = d * (RANK * math.ceil(IN / 8) + OUT * math.ceil(RANK / 8))
    assert kept <= x.nbytes + 8 * RANK * 3 * rows + 2 * 8 * parameters + masks
    assert way == "kept" or kept == x.nbytes + 8 * parameters + masks, "a bit for each mask of a value"


@pytest.mark.parametrize("phi", NONLINEARITIES)
@pytest.mark.parametrize(("boost", "bias_copies"), [(BOOSTS[1], 1), (BOOSTS[2], 3), (BOOSTS[4], 2)], ids=str)
@pytest.mark.parametrize("needs", [False, True])
def test_a_bottlenecks_gradients_are_those_of_plain_autograd(phi, boost, bias_copies, needs):
    generator = torch.Generator().manual_seed(3)
    down, up = (torch.randn(shape, generator=generator) for shape in ((RANK, IN), (IN, RANK)))
    masks = (transform(shape, boost, "s", role, 0) for shape, role in (((RANK, IN), "V"), ((IN, RANK), "U")))
    module = Bottleneck(*masks, down, up, phi, bias_copies).double()
    with torch.no_grad():
        module.b_V.copy_(torch.randn(RANK, generator=generator))
        module.b_U.copy_(torch.randn(IN, generator=generator))

    def plain(u: torch.Tensor) -> torch.Tensor:
        bias_in, bias_out = module.biases()
        return F.linear(module.phi(F.linear(u, module.right(), bias_in)), module.left(), bias_out)

    inputs = [given(6, needs), given(2, needs)]  # the second is less than the copies, which are then made again
    assert [module._outweighs(x) for x in inputs] == [len(module.right()) * 2 > 18, True]
    expected = gradients(module, inputs, plain)
    for one, two in zip(gradients(module, inputs, module), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    u, between = given(2, False), 8 * len(module.right()) * 6
    assert kept_bytes(lambda: module(u)) <= u.nbytes + 2 * between + 2 * 8 * RANK * IN + 2 * RANK * IN, "no copies"


def test_what_is_chosen_is_what_costs_least():
    same = {"inputs": 768, "outputs": 768, "rank": 32, "branches": 2, "trains": True, "merges": True}
    chosen = {tokens: cheapest_way(tokens, needs_input=True, **same) for tokens in (512, 768, 769, 4096)}
    assert chosen == {512: "kept", 768: "kept", 769: "merged", 4096: "merged"}
    assert cheapest_way(4096, needs_input=True, **{**same, "merges": False}) == "again"
    assert cheapest_way(385, needs_input=False, **{**same, "trains": False}) == "merged"
    assert cheapest_way(384, needs_input=False, **{**same, "trains": False}) == "kept"


def test_a_merged_weight_in_bf16_loses_small_updates_and_the_thin_products_keep_them():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((OUT, IN), generator=generator) + 4
    module = pair(None).float()
    with torch.no_grad():
        module.B.mul_(1e-4)
    update, x = (module.left() * module.scale @ module.right()).detach(), torch.randn((200, IN), generator=generator)
    assert torch.equal((weight.bfloat16() + update.bfloat16()), weight.bfloat16()), "rounding swallows all of it"
    with torch.autocast("cpu", torch.bfloat16):
        thin = module(x)
        whole = module(x, FrozenMap(weight, None))
    assert thin.dtype == torch.bfloat16 and module.way_at(200, False, True) == "merged", "fp32 would merge here"
    torch.testing.assert_close(thin.float(), x @ update.T, rtol=0.05, atol=1e-4)
    torch.testing.assert_close(whole.float(), x @ (weight + update).T, rtol=0.05, atol=0.5)


@pytest.mark.parametrize("family", ["roberta", "gpt2", "deberta_v2", "vit"])
def test_standing_in_for_the_map_computes_what_a_hook_would(family, monkeypatch):
    plain = take_steps(attach(miniature(family), "lora", rank=3, **{"boost.d": 2}), 3)
    monkeypatch.setattr(LowRank, "takes_frozen", False)
    hooked = take_steps(attach(miniature(family), "lora", rank=3, **{"boost.d": 2}), 3)
    assert plain == pytest.approx(hooked, rel=1e-4)


def test_hooks_of_others_see_the_frozen_output_and_nothing_is_left_behind():
    backbone = miniature("roberta")
    attached = attach(backbone, "lora", rank=3)
    with torch.no_grad():
        for name, parameter in attached.trainable().items():
            if name.endswith(".B"):
                parameter.fill_(0.1)
    site, batch, seen = backbone.sites("qv")[0], batch_for(backbone), []
    module = backbone.model.get_submodule(site.module)
    with attached.active():
        assert "forward" in vars(module)
        free = attached.logits(batch)
    handle = module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    with attached.active():
        assert "forward" not in vars(module)
        torch.testing.assert_close(attached.logits(batch), free)
    handle.remove()
    assert torch.equal(seen[0][1], F.linear(seen[0][0], module.weight, module.bias))
    assert "forward" not in vars(module) and not module._forward_hooks


def test_a_map_that_trains_keeps_its_own_gradient():
    module = nn.Linear(IN, OUT)
    from peft_core.methods._surgery import SiteHook
    from peft_core.records import Site

    hook = SiteHook(Site("s", "s", 0, "q", IN, OUT), pair(None).float())
    assert hook.stand_in(module) is None
    assert hook.stand_in(module.requires_grad_(False)) is not None


def test_below_the_first_adapted_site_nothing_has_a_gradient():
    attached = attach(miniature("roberta"), "capaboost_lora", rank=3)
    seen = []
    for module in attached.modules.values():
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0].requires_grad))
    loss_of(attached).backward()
    assert seen[:2] == [False, False] and all(seen[2:])
