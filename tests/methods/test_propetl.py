"""ProPETL against plain implementations: masks by sorting, gradients by hand, bits on disk."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import save

from peft_core.methods import resolve
from peft_core.methods._masks import MaskedCopies
from peft_core.methods._propetl import binary_mask, combine, pack_bits, top_mask, unpack_bits
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.storage import bit_level_storage_percent, seed_bits, stored_bits
from peft_core.records import InputError, MethodSpec
from peft_core.training.shape import attach_shape
from tests.backbones.conftest import make_backbone
from tests.conftest import batch_for, miniature
from tests.methods.test_contract import attach, loss_of, take_steps

METHODS = {
    "propetl_lora": {"rank": 3},
    "propetl_pfeiffer": {"bottleneck": 5},
    "propetl_prefix": {"length": 3, "bottleneck": 5},
}
ABLATIONS = [{}, {"share": False}, {"learn_masks": False}, {"random_masks": True}]
UNUSED = [
    ("learn_masks=false,random_masks=true", "random_masks"),
    ("learn_masks=false,keep=0.3", "keep"),
    ("learn_masks=false,score_bound=1", "score_bound"),
    ("learn_masks=false,mask_learning_rate=1", "mask_learning_rate"),
    ("learn_masks=false,task_masks=and", "task_masks"),
    ("random_masks=true,score_bound=1", "score_bound"),
    ("random_masks=true,task_masks=add", "task_masks"),
]
ABLATIONS += [{"share": False, "random_masks": True}, {"share": False, "keep": 0.3}]
CASES = [(method, options) for method in METHODS for options in ABLATIONS]


def sorted_mask(size: torch.Tensor, dropped: int) -> torch.Tensor:
    """Plain oracle: a stable sort, the first `dropped` places zeroed."""
    order = sorted(range(size.numel()), key=lambda index: (float(size.flatten()[index]), index))
    mask = torch.ones(size.numel(), dtype=torch.bool)
    mask[order[:dropped]] = False
    return mask.view(size.shape)


@pytest.mark.parametrize(
    ("keep", "dropped"),
    # of 70 values: floor((1 - k) n) in decimal; 0.9 drops 7, where binary floats would give 6
    [(0.5, 35), (0.3, 49), (0.9, 7), (0.11, 62), (1.0, 0), (0.001, 69)],
)
def test_a_mask_drops_the_smallest_scores_and_of_equal_ones_the_first(keep, dropped):
    size = torch.randint(0, 9, (7, 10), generator=torch.Generator().manual_seed(0)).float()
    mask = top_mask(size, keep)
    assert torch.equal(mask, sorted_mask(size, dropped)) and int(mask.sum()) == 70 - dropped
    assert torch.equal(mask, top_mask(torch.where(mask, 1.0, 0.0), keep)), "a mask as scores chooses itself"


def test_the_gradient_of_scores_is_the_sign_times_the_masked_weight_s():
    generator = torch.Generator().manual_seed(1)
    theta, scores, probe = (torch.randn(4, 6, generator=generator) for _ in range(3))
    theta, scores = theta.requires_grad_(), scores.requires_grad_()
    (probe * (theta * binary_mask(scores, 0.5)).tanh()).sum().backward()
    mask = sorted_mask(scores.detach().abs(), 12)
    masked = (theta.detach() * mask).requires_grad_()
    (probe * masked.tanh()).sum().backward()
    torch.testing.assert_close(scores.grad, scores.detach().sign() * masked.grad * theta.detach())
    torch.testing.assert_close(theta.grad, masked.grad * mask)


@pytest.mark.parametrize(
    ("method_id", "modules", "roles"), [("propetl_lora", 2, ("A", "B")), ("propetl_pfeiffer", 1, ("V", "U"))]
)
def test_one_prototype_gets_the_sum_of_the_layers_gradients(method_id, modules, roles):
    attached = attach(miniature("roberta"), method_id, **METHODS[method_id])
    prototypes = {name: module for name, module in attached.modules.items() if name.startswith("prototype.")}
    assert len(prototypes) == modules
    take_steps(attached, 2)
    attached.train()
    loss_of(attached).backward()
    for prototype in prototypes.values():
        users = list(prototype.users.values())
        assert len(users) == 2
        for role in roles:
            shared = getattr(prototype, role)
            together = shared.grad.clone()
            assert all(getattr(user, role) is shared for user in users)
            copies = [torch.nn.Parameter(shared.detach().clone()) for _ in users]
            for user, copy in zip(users, copies, strict=True):
                setattr(user, role, copy)
            alone = torch.autograd.grad(loss_of(attached), copies)
            for user, gradient in zip(users, alone, strict=True):
                assert gradient[~getattr(user, f"mask_{role}").chosen()].eq(0).all()
                setattr(user, role, shared)
            torch.testing.assert_close(together, alone[0] + alone[1], rtol=1e-4, atol=1e-7)


def test_biases_are_shared_and_unmasked_and_scores_train_at_their_own_rate():
    attached = attach(miniature("roberta"), "propetl_pfeiffer", bottleneck=5)
    names = set(attached.trainable())
    assert {f"adapter.prototype.adapter.{role}" for role in ("V", "U", "b_V", "b_U")} <= names
    scores = {name for name in names if name.endswith(".scores")}
    assert len(scores) == 2 * 2 and set(attached.groups) == scores
    assert {group.rate for group in attached.groups.values()} == {3e-3}
    assert all(group.decay is None for group in attached.groups.values()), "scores decay like other matrices"
    lora = attach(miniature("roberta"), "propetl_lora", rank=3)
    assert {group.rate for group in lora.groups.values()} == {3e-2}


@pytest.mark.parametrize(
    ("method_id", "options", "bounds"),
    [
        ("propetl_lora", {"rank": 4}, {"A": 32**-0.5, "B": 4**-0.5}),
        ("propetl_pfeiffer", {"bottleneck": 4}, {"V": 4**-0.5, "U": 32**-0.5}),
        ("propetl_pfeiffer", {"bottleneck": 4, "score_bound": 0.01}, {"V": 0.01, "U": 0.01}),
    ],
)
def test_scores_start_within_their_bounds(method_id, options, bounds):
    attached = attach(miniature("roberta"), method_id, **options)
    for role, bound in bounds.items():
        largest = [
            float(p.detach().abs().max()) for n, p in attached.trainable().items() if n.endswith(f"{role}.scores")
        ]
        assert all(0.9 * bound < value <= bound for value in largest) and len(set(largest)) > 1


def test_masks_of_layers_and_tasks_combine():
    generator = torch.Generator().manual_seed(2)
    layer, task = (torch.randn(400, 500, generator=generator, requires_grad=True) for _ in range(2))
    masks = binary_mask(layer, 0.3), binary_mask(task, 0.3)
    a, b = (mask.detach().bool() for mask in masks)
    either = combine(*masks)
    assert torch.equal(either.detach().bool(), a | b) and set(either.detach().unique().tolist()) == {0.0, 1.0}
    # 1 - 0.7^2 = 0.51; the standard deviation of the share over 200,000 places is 0.0005
    assert float(either.detach().mean()) == pytest.approx(0.51, abs=0.003)
    assert torch.equal(combine(*masks, how="and").detach().bool(), a & b)
    assert set(combine(*masks, how="add").detach().unique().tolist()) == {0.0, 1.0, 2.0}
    either.sum().backward()
    torch.testing.assert_close(layer.grad, layer.detach().sign() * ~b)
    torch.testing.assert_close(task.grad, task.detach().sign() * ~a)


@pytest.mark.parametrize("count", [1, 8, 13])
def test_bits_are_packed_and_unpacked(count):
    values = torch.arange(count) % 3 == 0
    packed = pack_bits(values)
    assert packed.dtype == torch.uint8 and len(packed) == math.ceil(count / 8)
    assert int(packed[0]) == sum(2**place for place in range(0, min(count, 8), 3))
    assert torch.equal(unpack_bits(packed, count), values)


@pytest.mark.parametrize(("method_id", "options"), CASES)
def test_the_file_is_the_bit_level_storage_and_its_header(method_id, options, tmp_path):
    attached = attach(miniature("roberta"), method_id, seed=5, **METHODS[method_id] | options)
    take_steps(attached, 2, rate=0.05)
    tensors = attached.stored()
    (tmp_path / "adapter").write_bytes(save(tensors))
    size = (tmp_path / "adapter").stat().st_size
    header = 8 + int.from_bytes((tmp_path / "adapter").read_bytes()[:8], "little")
    assert size - header == math.ceil((stored_bits(attached.counts) - seed_bits(attached.counts)) / 8)
    json.loads((tmp_path / "adapter").read_bytes()[8:header])
    again = attach(miniature("roberta"), method_id, seed=5, **METHODS[method_id] | options)
    again.load_stored(tensors, attached.stored_head())
    outputs = []
    for one in (attached, again):
        one.train(False)
        with one.active():
            outputs.append(one.backbone.logits(batch_for(one.backbone)))
    assert torch.equal(*outputs)
    for old, new in zip(attached.updates(), again.updates(), strict=True):
        assert torch.equal(old.left, new.left) and torch.equal(old.right, new.right)


def test_bits_by_formula():
    n, biases, layers = 2 * 5 * 32, 5 + 32, 2
    shared = attach(miniature("roberta"), "propetl_pfeiffer", bottleneck=5)
    assert stored_bits(shared.counts) == 32 * (n + biases) + n * layers
    assert shared.active_parameters() == n + biases + n * layers
    apart = attach(miniature("roberta"), "propetl_pfeiffer", bottleneck=5, share=False, keep=0.3)
    kept = 2 * (160 - 112)
    assert stored_bits(apart.counts) == layers * (32 * (kept + biases) + n), "exact: with the masks' own bits"
    plain = attach(miniature("roberta"), "propetl_pfeiffer", bottleneck=5, learn_masks=False)
    assert stored_bits(plain.counts) == 32 * (n + biases) == 32 * plain.active_parameters()
    fixed = attach(miniature("roberta"), "propetl_pfeiffer", bottleneck=5, random_masks=True)
    assert all(isinstance(m.mask_V, MaskedCopies) for name, m in fixed.modules.items() if "prototype" not in name)
    assert not any(name.endswith("scores") for name in fixed.trainable()) and seed_bits(fixed.counts) == 64


def test_flops_are_those_of_the_base_method():
    for method, base in (("propetl_lora:rank=8", "lora:rank=8"), ("propetl_pfeiffer", "adapter_pfeiffer")):
        ours, plain = (attach_shape("roberta-base", MethodSpec.parse(name))[0].counts for name in (method, base))
        assert adapter_flops_executed(ours) == adapter_flops_executed(plain) == adapter_flops_nominal(ours)


def test_scores_of_t5_start_by_the_other_axis():
    attached = attach(make_backbone("t5"), "propetl_pfeiffer", bottleneck=4)
    assert len([name for name in attached.trainable() if name.endswith("scores")]) == 2 * 4
    for role, bound in (("V", 32**-0.5), ("U", 4**-0.5)):
        scores = [p.detach().abs().max() for n, p in attached.trainable().items() if n.endswith(f"{role}.scores")]
        assert 0.9 * bound < float(max(scores)) <= bound


def test_encoder_and_decoder_share_one_prototype_under_a_mask_each():
    attached, _ = attach_shape("t5-base", MethodSpec.parse("propetl_pfeiffer:bottleneck=64"))
    prototypes = [module for name, module in attached.modules.items() if name.startswith("prototype.")]
    assert len(prototypes) == 1 and len(prototypes[0].users) == 24
    n = 2 * 64 * 768
    percent = bit_level_storage_percent(attached.counts, 222_903_552)
    assert percent == pytest.approx(100 * (32 * (n + 64 + 768) + 24 * n) / (32 * 222_903_552))


def test_roles_share_where_their_shapes_agree():
    attached = attach(miniature("roberta"), "propetl_lora", rank=3, sites="six")
    shapes = {
        name: (tuple(module.A.shape), tuple(module.B.shape))
        for name, module in attached.modules.items()
        if name.startswith("prototype.")
    }
    assert set(shapes) == {f"prototype.{role}" for role in ("q", "k", "v", "o", "ffn_in", "ffn_out")}
    assert shapes["prototype.ffn_in"] == ((3, 32), (64, 3))


def test_merging_gives_the_same_output():
    backbone, merged = miniature("vit"), miniature("vit")
    attached = attach(backbone, "propetl_lora", rank=4, sites="six", alpha=6.0)
    take_steps(attached, 3)
    attached.train(False)
    batch = batch_for(backbone)
    with attached.active():
        expected = backbone.logits(batch)
    sites = {site.name: site for site in merged.sites("six")}
    for update in attached.updates():
        with torch.no_grad():
            weight = merged.model.get_parameter(f"{sites[update.site].module}.weight")
            weight += update.left @ update.right
        assert update.bound == 4
    head = attach(merged, "head")
    head.load_stored({}, attached.stored_head())
    with head.active():
        torch.testing.assert_close(merged.logits(batch), expected, rtol=1e-4, atol=1e-5)


def test_learned_masks_move_and_keep_their_count():
    attached = attach(miniature("roberta"), "propetl_lora", rank=4, keep=0.3)
    masks = [module.mask_A for name, module in attached.modules.items() if not name.startswith("prototype.")]
    before = [mask.chosen() for mask in masks]
    take_steps(attached, 10, rate=3e-2)
    after = [mask.chosen() for mask in masks]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(int(mask.sum()) == 128 - 89 for mask in after)


@pytest.mark.parametrize("harm", ["missing", "short", "dense"])
def test_masks_that_do_not_fit_are_refused(harm):
    attached = attach(miniature("roberta"), "propetl_lora", rank=4)
    tensors = attached.stored()
    if harm == "missing":
        del tensors["masks"]
    else:
        tensors["masks"] = tensors["masks"][1:] if harm == "short" else torch.full_like(tensors["masks"], 255)
    with pytest.raises(InputError, match=r"it must hold one bit|must keep 64 weights"):
        attached.load_stored(tensors, attached.stored_head())


@pytest.mark.parametrize(("options", "field"), UNUSED)
def test_an_option_that_would_do_nothing_is_refused(options, field):
    with pytest.raises(InputError) as refused:
        resolve(MethodSpec.parse(f"propetl_lora:{options}"))
    assert refused.value.field == field
    resolve(MethodSpec.parse("propetl_lora:learn_masks=false,task_masks=off"))
    resolve(MethodSpec.parse("propetl_lora:random_masks=true,keep=0.3"))
