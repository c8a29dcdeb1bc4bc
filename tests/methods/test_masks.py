"""The mask generator: exact counts, keys, patterns, and golden values that no change may alter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.methods import resolve
from peft_core.methods._masks import (
    GENERATOR_VERSION,
    BoostConfig,
    MaskedCopies,
    exact_mask,
    hash_counters,
    kept_count,
    stream,
)
from peft_core.records import InputError, MethodSpec


def splitmix64(x: int) -> int:
    """The generator on Python's whole numbers, as an independent reference."""
    wrap = 2**64 - 1
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & wrap
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & wrap
    return x ^ (x >> 31)


def keys(base: int, count: int) -> list[int]:
    return [splitmix64((base + (i + 1) * 0x9E3779B97F4A7C15) & (2**64 - 1)) for i in range(count)]


@given(base=st.integers(-(2**63), 2**63 - 1), count=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_the_hash_is_splitmix64(base, count):
    ours = hash_counters(base, torch.arange(count)).numpy().astype(np.uint64)
    assert ours.tolist() == keys(base, count)


@given(rows=st.integers(1, 12), cols=st.integers(1, 12), percent=st.integers(0, 99), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_mask_keeps_the_smallest_keys_exactly(rows, cols, percent, seed):
    base = stream(seed)
    mask = exact_mask((rows, cols), percent / 100, base).flatten().tolist()
    keep = rows * cols * (100 - percent) // 100
    drawn = keys(base, rows * cols)
    smallest = set(sorted(range(rows * cols), key=drawn.__getitem__)[:keep])
    assert [i in smallest for i in range(rows * cols)] == mask


@pytest.mark.parametrize(
    ("count", "sparsity", "kept"), [(100, 0.9, 10), (10, 0.7, 3), (1000, 0.001, 999), (3, 0.99, 0)]
)
def test_the_kept_count_is_exact_in_decimal(count, sparsity, kept):
    assert kept_count(count, sparsity) == kept


def test_golden_masks():
    assert GENERATOR_VERSION == 1
    copies = MaskedCopies((4, 8), BoostConfig(d=2, sparsity=0.5), "encoder.0.q", "A", seed=42)
    packed = np.packbits(copies.masks.numpy().reshape(2, -1), axis=1)
    assert packed.tolist() == GOLDEN


GOLDEN = [[60, 164, 182, 15], [94, 213, 25, 146]]


def test_masks_depend_on_the_key_alone():
    config = BoostConfig(d=3, sparsity=0.5)
    first = MaskedCopies((8, 16), config, "s", "A", 5).masks
    torch.manual_seed(99)
    MaskedCopies((8, 16), config, "t", "A", 5)
    assert torch.equal(first, MaskedCopies((8, 16), config, "s", "A", 5).masks)
    others = [("t", "A", 5), ("s", "B", 5), ("s", "A", 6)]
    assert all(not torch.equal(first, MaskedCopies((8, 16), config, *key).masks) for key in others)
    assert not torch.equal(first[0], first[1])
    fixed = BoostConfig(d=3, sparsity=0.5, mask_seed=5)
    assert torch.equal(first, MaskedCopies((8, 16), fixed, "s", "A", 777).masks)


def test_n_of_m_keeps_n_of_every_m_along_the_contraction_axis():
    copies = MaskedCopies((6, 32), BoostConfig(d=2, masks="2:4"), "s", "A", 0)
    assert copies.masks.reshape(2, 6, 8, 4).sum(-1).eq(2).all()
    with pytest.raises(InputError, match="M must divide 30"):
        MaskedCopies((6, 30), BoostConfig(masks="2:4"), "s", "A", 0)


def test_same_masks_are_one_mask_and_dropout_masks_change_by_step():
    same = MaskedCopies((8, 8), BoostConfig(d=3, masks="same"), "s", "A", 0)
    assert torch.equal(same.masks[0], same.masks[2])
    fresh = MaskedCopies((8, 8), BoostConfig(d=2, masks="dropout", sparsity=0.25), "s", "A", 0)
    before = fresh.masks.clone()
    fresh.draw(1)
    assert not torch.equal(before, fresh.masks) and fresh.union() is None
    weight = torch.ones(8, 8)
    fresh.eval()
    assert torch.equal(fresh(weight), torch.full((2, 8, 8), 0.75))


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"d": 2, "sparsity": 0.5}, 0.75),
        ({"d": 4, "sparsity": 0.5}, 0.9375),
        ({"d": 3, "sparsity": 0.5, "masks": "same"}, 0.5),
        ({"d": 2, "masks": "1:4"}, 1 - 0.75**2),
        ({"d": 2, "masks": "dropout"}, 1.0),
    ],
)
def test_the_trainable_share_is_that_of_the_union(options, share):
    config = BoostConfig(**options)
    copies = MaskedCopies((64, 128), config, "s", "A", 0)
    assert config.nominal_share() == pytest.approx(share)
    assert copies.kept / (64 * 128) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("field", "value"),
    [("d", 0), ("sparsity", -0.1), ("sparsity", 1.0), ("masks", "4:2"), ("masks", "0:4"), ("masks", "odd")],
)
def test_bad_options_are_named(field, value):
    from peft_core.methods import resolve
    from peft_core.records import MethodSpec

    with pytest.raises(InputError, match=field):
        resolve(MethodSpec(id="capaboost_lora", options={field: value}))


@pytest.mark.parametrize(
    "options", ["adalora:boost.{}=2:4,boost.{}=", "sora:boost.{}=2:4,boost.{}=", "capaboost_lora:{}=2:4,{}="]
)
def test_a_sparsity_beside_a_pattern_that_says_otherwise_is_refused(options):
    text = options.format("masks", "sparsity")
    resolve(MethodSpec.parse(f"{text}0.5"))
    with pytest.raises(InputError, match=r"with masks 2:4 it is 0\.5"):
        resolve(MethodSpec.parse(f"{text}0.9"))


def test_a_pattern_s_config_is_whole_and_comes_back_from_its_dump():
    config = BoostConfig(d=2, masks="1:4")
    assert config.sparsity == 0.75 and config.density == 0.25
    assert BoostConfig.model_validate(config.model_dump()) == config
    boosted = resolve(MethodSpec.parse("capaboost_lora:masks=1:4"))
    assert resolve(MethodSpec(id="capaboost_lora", options=boosted.model_dump())) == boosted
