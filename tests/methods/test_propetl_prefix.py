"""ProPETL on prefixes against plain implementations: a block from plain maps, masks by sorting, gradients by hand."""

from __future__ import annotations

import math

import pytest
import torch

from peft_core.budget import budget
from peft_core.methods._masks import Plain
from peft_core.methods.propetl_prefix import MadePrototype, MaskedPrefix
from peft_core.metrics.storage import seed_bits, stored_bits
from peft_core.records import InputError, MethodSpec
from tests.conftest import miniature
from tests.methods.test_contract import attach as attach_with_head
from tests.methods.test_contract import loss_of, take_steps
from tests.methods.test_prefix import attach, backbone_of, inputs_of
from tests.methods.test_propetl import sorted_mask
from tests.miniatures import CORE

SMALL = {"length": 3, "bottleneck": 5}
SPEC = "propetl_prefix:length=3,bottleneck=5"


def prototypes(attached) -> dict[str, MadePrototype]:
    return {
        name.removeprefix("prototype."): module
        for name, module in attached.modules.items()
        if isinstance(module, MadePrototype)
    }


def plain_block(prototype: MadePrototype) -> torch.Tensor:
    """(l, 2 n) by plain products."""
    trunk = prototype.trunk
    return torch.tanh(trunk.E @ trunk.W.T + trunk.b) @ prototype.W.T + prototype.b


def masked(prefix: MaskedPrefix, block: torch.Tensor, keep: float = 0.5) -> torch.Tensor:
    size = prefix.mask_P.scores.detach().abs()
    return block * sorted_mask(size, math.floor((1 - keep) * size.numel()))


def trained(family: str, options: str = ""):
    """An attachment after three steps on the sum of its squared outputs, large enough to be seen."""
    backbone = backbone_of(family)
    batch, attached = inputs_of(backbone), attach(backbone, SPEC + options)
    optimizer = torch.optim.AdamW(attached.trainable().values(), lr=0.05)
    for _ in range(3):
        with attached.active():
            backbone.logits(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return backbone, batch, attached


@pytest.mark.parametrize("family", CORE)
def test_every_layer_sees_one_block_under_a_joint_mask_of_its_own(family):
    backbone = backbone_of(family)
    attached = attach(backbone, SPEC)
    groups = {place.group for place in backbone.prefix_places()}
    assert set(prototypes(attached)) == groups and len(groups) == (3 if family == "t5" else 1)
    kept_keys = set()
    for place in backbone.prefix_places():
        prototype, prefix = prototypes(attached)[place.group], attached.modules[place.name]
        assert prototype.trunk.E.shape == (3, 32) and prototype.W.shape == (2 * place.width, 5)
        expected = masked(prefix, plain_block(prototype))
        keys, values = prefix.rows()
        torch.testing.assert_close(keys, expected[:, : place.width])
        torch.testing.assert_close(values, expected[:, place.width :])
        assert int(prefix.mask_P.chosen().sum()) == 3 * place.width, "half of l x 2 n"
        kept_keys.add(int(keys.ne(0).sum()))
    assert kept_keys != {3 * place.width // 2}, "one top-k over both, not one for each"


def test_gradients_of_scores_and_block_are_those_of_the_masks_on_what_is_made():
    attached = attach_with_head(miniature("roberta"), "propetl_prefix", **SMALL)
    take_steps(attached, 2, rate=0.05)
    attached.train()
    loss_of(attached).backward()
    (prototype,) = prototypes(attached).values()
    users = [module for module in attached.modules.values() if isinstance(module, MaskedPrefix)]
    assert len(users) == 2 and list(prototype.users.values()) == users
    block = plain_block(prototype)
    scores = [user.mask_P.scores for user in users]
    leaves = [masked(user, block.detach()).requires_grad_() for user in users]
    masks = [user.mask_P.chosen() for user in users]
    for user, leaf in zip(users, leaves, strict=True):
        user.mask_P = Plain(tuple(leaf.shape))
        user._shared = lambda leaf=leaf: {"P": leaf}
    gradients = torch.autograd.grad(loss_of(attached), leaves)
    for score, gradient in zip(scores, gradients, strict=True):
        expected = score.detach().sign() * gradient * block.detach()
        torch.testing.assert_close(score.grad, expected, rtol=1e-4, atol=1e-8)
    total = sum(mask * gradient for mask, gradient in zip(masks, gradients, strict=True))
    made_from = dict(prototype.named_parameters())
    assert len(made_from) == 5
    for name, expected in zip(made_from, torch.autograd.grad(block, list(made_from.values()), total), strict=True):
        torch.testing.assert_close(made_from[name].grad, expected, rtol=1e-4, atol=1e-7)


def test_the_papers_count_and_what_trains_are_both_told():
    block, layers = 2 * 64 * 768, 12
    made_from = 64 * 768 + 769 * 512 + 513 * 1536
    specs = ("", ",share=false", ",learn_masks=false", ",random_masks=true,keep=0.1")
    shared, apart, alike, fixed = budget(
        "roberta-base", [MethodSpec.parse(f"propetl_prefix:length=64{options}") for options in specs]
    )
    assert shared["trainable"] == made_from + layers * block
    assert shared["trainable_percent"] == pytest.approx(1.943, abs=5e-4)
    assert shared["weights"] == (1 + layers) * block and shared["stored_parameters"] == block
    assert shared["bit_level_storage_percent"] == pytest.approx(100 * (32 + layers) * block / (32 * 124_055_040))
    assert apart["trainable"] == made_from + 11 * 513 * 1536 + layers * block
    assert apart["stored_parameters"] == apart["weights"] == layers * block / 2
    assert alike["trainable"] == made_from and alike["weights"] == alike["stored_parameters"] == block
    # 1 - 0.9^12 = 0.7176 of the block is in some layer's mask; over 98,304 places its standard deviation is 0.0014
    assert fixed["trainable"] == made_from and fixed["weights"] == pytest.approx((1 - 0.9**12) * block)
    assert fixed["stored_parameters"] / block == pytest.approx(0.7176, abs=0.006)
    plain = budget("roberta-base", [MethodSpec.parse("prefix:length=64")])[0]
    for entry in (shared, apart, alike, fixed):
        assert entry["adapter_flops_executed"] == entry["adapter_flops_nominal"] == plain["adapter_flops_nominal"]
        assert entry["rank_bound"] == 64


def test_scores_have_their_rate_and_their_bound():
    attached = attach_with_head(miniature("roberta"), "propetl_prefix", **SMALL)
    scores = {name: value for name, value in attached.trainable().items() if name.endswith(".scores")}
    assert set(attached.groups) == set(scores) and len(scores) == 2
    assert {group.rate for group in attached.groups.values()} == {1e-4}
    bound = (3 * 64) ** -0.5
    assert all(0.9 * bound < float(value.detach().abs().max()) <= bound for value in scores.values())


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_without_sharing_and_masks_it_is_prefix_tuning_bit_for_bit(family):
    bare = {"share": False, "learn_masks": False}
    cases = (("prefix", {}), ("propetl_prefix", bare))
    losses = [take_steps(attach_with_head(miniature(family), id, **SMALL | options), 4) for id, options in cases]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("options", "blocks", "alike"),
    [({"learn_masks": False}, 1, True), ({"random_masks": True}, 1, False), ({"share": False}, 2, False)],
)
def test_the_ablations(options, blocks, alike):
    attached = attach_with_head(miniature("roberta"), "propetl_prefix", **SMALL | options)
    assert len(prototypes(attached)) == blocks
    first, second = (m.rows() for m in attached.modules.values() if isinstance(m, MaskedPrefix))
    assert torch.equal(first[0], second[0]) == alike
    zeros = sum(int(part.eq(0).sum()) for part in first)
    assert zeros == (0 if "learn_masks" in options else 3 * 32)
    learned = [name for name in attached.trainable() if name.endswith("scores")]
    assert len(learned) == (2 if "share" in options else 0)
    assert seed_bits(attached.counts) == (64 if "random_masks" in options else 0)


@pytest.mark.parametrize("family", CORE)
@pytest.mark.parametrize("options", ["", ",share=false,keep=0.3", ",random_masks=true", ",learn_masks=false"])
def test_what_is_stored_is_flat_and_gives_the_same_outputs(family, options):
    backbone, batch, attached = trained(family, options)
    stored, expected = attached.stored(), {}
    blocks = {f"prototype.{key}.P" for key in prototypes(attached)}
    assert set(stored) == blocks | ({"masks"} if options in ("", ",share=false,keep=0.3") else set())
    bits = stored_bits(attached.counts) - seed_bits(attached.counts)
    assert sum(value.nbytes for value in stored.values()) == math.ceil(bits / 8)
    for key, prototype in prototypes(attached).items():
        if options in ("", ",learn_masks=false"):
            torch.testing.assert_close(stored[f"prototype.{key}.P"], plain_block(prototype).detach())
    for precision in (torch.float32, torch.bfloat16):
        with torch.no_grad(), attached.active(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            expected[precision] = backbone.logits(batch)
    for target in (attached, attach(backbone_of(family), SPEC + options)):
        target.load_stored(stored, {})
        assert not prototypes(target), "what made the block is gone"
        assert not {"E", "W", "b"} & {name.rpartition(".")[2] for name in target.trainable()}
        for precision, outputs in expected.items():
            with torch.no_grad(), target.active(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
                assert torch.equal(target.backbone.logits(batch), outputs)
        assert {name: value.tolist() for name, value in target.stored().items()} == {
            name: value.tolist() for name, value in stored.items()
        }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("masks", torch.zeros(23, dtype=torch.uint8), "it must hold one bit for each of 384 weights"),
        ("masks", torch.zeros(48, dtype=torch.uint8), "its mask must keep 96 weights"),
        ("prototype.layer.attention.P", torch.zeros(7), "it must hold 192 values, not 7"),
        ("prototype.layer.attention.W", torch.zeros(7), "its tensors must be exactly those"),
    ],
)
def test_what_does_not_fit_is_refused(name, value, message):
    attached = attach_with_head(miniature("roberta"), "propetl_prefix", **SMALL)
    with pytest.raises(InputError, match=message):
        attached.load_stored(attached.stored() | {name: value}, attached.stored_head())
