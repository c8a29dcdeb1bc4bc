"""Fit a target: the figures of the first look, exact optima, equal parameters, refusals."""

from __future__ import annotations

import pytest
import torch

from peft_core.playground import Curves, FitPair, FitSpec, fit, made_target, ranks_at_equal_parameters, target_of_update
from peft_core.records import InputError, checked

PLAIN = [FitPair(rank=6), FitPair(rank=8), FitPair(rank=16)]
MASKED = [FitPair(rank=8, d=2, sparsity=0.5), FitPair(rank=8, d=2, sparsity=0.2)]
FIRST_LOOK = {
    "flat": [0.375, 0.500, 1.000, 0.359, 0.513],
    "decay": [0.911, 0.933, 0.968, 0.721, 0.909],
    "gaussian": [0.163, 0.210, 0.376, 0.177, 0.225],
}


@pytest.mark.parametrize("kind", FIRST_LOOK)
def test_the_figures_of_the_first_look_come_out(kind):
    target = made_target(kind, 128, 16, seed=0)
    curves = Curves(target, PLAIN + MASKED, seed=0)
    steps, shares = zip(*curves.points(), strict=True)
    assert steps[0] == 0 and steps[-1] == curves.steps == 600
    assert shares[-1] == pytest.approx(FIRST_LOOK[kind], abs=0.02)
    rows = curves.described()["pairs"]
    for row, share in zip(rows, shares[-1], strict=True):
        assert share <= row["best"] + 1e-4
        if row["exact"]:
            assert share == pytest.approx(row["best"], abs=0.005)
    assert rows[0]["parameters"] == 1536 and rows[3]["parameters"] == pytest.approx(1536, abs=60)
    assert [row["largest_rank"] for row in rows] == [6, 8, 16, 16, 16]


def test_targets_have_their_spectra():
    shares = made_target("flat", 32, 8, seed=1).best
    assert shares[:8].tolist() == pytest.approx([rank / 8 for rank in range(1, 9)])
    decay = made_target("decay", 32, 8, seed=1)
    squares = (1 / torch.arange(1, 33).double()).square().cumsum(0)
    assert torch.allclose(decay.best, squares / squares[-1])
    assert float(decay.matrix.square().mean()) == pytest.approx(1)
    assert not torch.equal(decay.matrix, made_target("decay", 32, 8, seed=2).matrix)


def test_pairs_together_are_fitted_as_alone():
    target = made_target("gaussian", 32, 8, seed=0)
    pairs = [FitPair(rank=4), *MASKED, FitPair(rank=4, d=2, masks="2:4")]
    alone = [fit(target, [pair])[0] for pair in pairs]
    assert fit(target, pairs) == pytest.approx(alone, abs=1e-4)


def test_an_update_that_is_not_square_is_captured():
    delta = torch.randn(24, 3) @ torch.randn(3, 40) * 1e-4
    target = target_of_update("layer.0.q", delta)
    assert fit(target, [FitPair(rank=3), FitPair(rank=1)]) == pytest.approx([1.0, target.at_rank(1)], abs=0.01)


@pytest.mark.parametrize("delta", [torch.zeros(4, 4), torch.full((4, 4), torch.nan), torch.zeros(2000, 2000)])
def test_an_update_that_cannot_be_captured_is_refused(delta):
    with pytest.raises(InputError, match="its update"):
        target_of_update("layer.0.q", delta)


def test_equal_parameters_move_the_ranks_of_all_but_the_first():
    pairs = [
        FitPair(rank=6),
        FitPair(rank=3, d=2, sparsity=0.5),
        FitPair(rank=4, d=2, masks="2:4"),
        FitPair(rank=64, masks="same", d=4, sparsity=0.5),
    ]
    found = ranks_at_equal_parameters(pairs)
    assert [pair.rank for pair in found] == [6, 8, 8, 12]
    assert found[3].largest_rank == 12 and found[3].label == "CapaBoost r=12 d=4 s=0.5 same masks"
    kept = [row["parameters"] for row in Curves(made_target("decay", 128, 1, 0), found, 0).described()["pairs"]]
    assert kept == pytest.approx([1536] * 4, rel=0.05)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"pairs": []}, "pairs"),
        ({"pairs": [{"rank": 0}]}, "pairs.0.rank"),
        ({"pairs": [{"masks": "dropout"}]}, "masks"),
        ({"pairs": [{}], "target": "round"}, "target"),
        ({"pairs": [{}], "target_rank": 100, "size": 64}, "target_rank"),
        ({"pairs": [{}], "size": 1024}, "size"),
    ],
)
def test_a_fit_that_cannot_be_is_refused_at_its_field(values, field):
    with pytest.raises(InputError) as caught:
        checked(FitSpec, values)
    assert caught.value.field == field


def test_too_much_at_once_and_patterns_that_do_not_divide_are_refused():
    target = made_target("gaussian", 32, 8, seed=0)
    with pytest.raises(InputError, match="at most 512"):
        Curves(target, [FitPair(rank=64, d=8), FitPair()], 0)
    with pytest.raises(InputError, match="M must divide 6"):
        Curves(target, [FitPair(rank=6, d=2, masks="2:4")], 0)
