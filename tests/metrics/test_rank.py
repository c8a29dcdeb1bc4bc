"""Rank from factors against numpy on the materialised product, and the formulas on spectra made by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_core.metrics.rank import rank_of_factors, rank_of_matrix, rank_of_spectrum, ranks_of_factors
from peft_core.records import RunFailure


def factors(out: int, inner: int, inputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32, as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, inner, generator=generator), torch.randn(inner, inputs, generator=generator)


def numpy_rank(left: torch.Tensor, right: torch.Tensor) -> int:
    return int(np.linalg.matrix_rank(left.double().numpy() @ right.double().numpy()))


@given(
    out=st.integers(1, 24),
    inner=st.integers(1, 30),
    inputs=st.integers(1, 24),
    scales=st.tuples(st.integers(-12, 12), st.integers(-12, 12)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_factors_give_what_the_product_gives(
    out: int, inner: int, inputs: int, scales: tuple[int, int], seed: int
) -> None:
    left, right = factors(out, inner, inputs, seed)
    left, right = left * 10.0 ** scales[0], right * 10.0 ** scales[1]
    product = left.double() @ right.double()
    rank = rank_of_factors(left, right)
    assert rank.numerical == numpy_rank(left, right) == int(torch.linalg.matrix_rank(product))
    dense = rank_of_matrix(product)
    assert rank.singular_values.shape == torch.Size([min(out, inner, inputs)])
    top = rank.singular_values[0].item()
    torch.testing.assert_close(
        rank.singular_values, dense.singular_values[: len(rank.singular_values)], atol=1e-12 * top, rtol=1e-9
    )
    assert rank.effective == pytest.approx(dense.effective, rel=1e-6)
    assert rank.stable == pytest.approx(dense.stable, rel=1e-9)
    assert rank.norm == pytest.approx(float(torch.linalg.norm(product)), rel=1e-9)
    assert 1 - 1e-9 <= rank.stable <= rank.effective + 1e-9 <= rank.numerical + 2e-9


@given(rank=st.integers(1, 4), copies=st.integers(1, 4), density=st.floats(0.05, 1.0), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_masked_copies_give_what_the_product_gives(rank: int, copies: int, density: float, seed: int) -> None:
    """Stacked factors under binary masks: exact zeros, whole zero rows and equal blocks included."""
    left, right = factors(20, rank, 16, seed)
    generator = torch.Generator().manual_seed(seed)
    masked_left = [left * (torch.rand(left.shape, generator=generator) < density) for _ in range(copies)]
    masked_right = [right * (torch.rand(right.shape, generator=generator) < density) for _ in range(copies)]
    stacked = torch.cat(masked_left, 1), torch.cat(masked_right, 0)
    assert rank_of_factors(*stacked).numerical == numpy_rank(*stacked)
    same = torch.cat(masked_left[:1] * copies, 1), torch.cat(masked_right[:1] * copies, 0)
    assert rank_of_factors(*same).numerical == numpy_rank(*same) <= rank


@pytest.mark.parametrize(("rank", "copies"), [(4, 2), (8, 4), (32, 4)])
def test_masked_copies_of_one_pair_reach_d_times_its_rank(rank: int, copies: int) -> None:
    left, right = factors(128, rank, 128)
    generator = torch.Generator().manual_seed(1)
    lefts = [left * (torch.rand(left.shape, generator=generator) < 0.5) for _ in range(copies)]
    rights = [right * (torch.rand(right.shape, generator=generator) < 0.5) for _ in range(copies)]
    stacked = torch.cat(lefts, 1), torch.cat(rights, 0)
    assert rank_of_factors(*stacked).numerical == min(128, rank * copies) == numpy_rank(*stacked)


def test_a_flat_spectrum_counts_fully_in_all_three_ranks() -> None:
    rank = rank_of_matrix(torch.diag(torch.tensor([3.0, 3.0, 3.0, 0.0])))
    assert rank.numerical == 3
    assert rank.effective == pytest.approx(3)
    assert rank.stable == pytest.approx(3)
    assert rank.norm == pytest.approx(math.sqrt(27))


def test_formulas_on_a_spectrum_of_two_and_one() -> None:
    rank = rank_of_spectrum(torch.tensor([2.0, 1.0], dtype=torch.float64), (5, 2))
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert rank.effective == pytest.approx(math.exp(entropy))
    assert rank.stable == pytest.approx(5 / 4)
    assert rank.norm == pytest.approx(math.sqrt(5))


def test_the_threshold_is_the_larger_side_times_eps_unless_given() -> None:
    eps = torch.finfo(torch.float64).eps
    spectrum = torch.tensor([1.0, 1e-3, 101 * eps, 99 * eps], dtype=torch.float64)
    assert rank_of_spectrum(spectrum, (100, 4)).numerical == 3
    assert rank_of_spectrum(spectrum, (100, 4), tolerance=1e-2).numerical == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (torch.zeros(5, 2), torch.randn(2, 4)),
        (torch.randn(5, 2), torch.zeros(2, 4)),
        (torch.zeros(5, 0), torch.zeros(0, 4)),
        (torch.eye(4)[:, :1], torch.zeros(1, 4)),
    ],
)
def test_a_zero_update_has_no_rank(left: torch.Tensor, right: torch.Tensor) -> None:
    rank = rank_of_factors(left, right)
    assert (rank.numerical, rank.effective, rank.stable, rank.norm) == (0, 0.0, 0.0, 0.0)


def test_factors_whose_product_is_zero_have_no_rank() -> None:
    left, right = torch.eye(4)[:, :2], torch.zeros(2, 4)
    right[0, 0] = 0.0
    gated = left @ torch.diag(torch.tensor([1.0, 0.0])), torch.tensor([[0.0] * 4, [1.0] * 4])
    assert rank_of_factors(*gated).numerical == 0
    assert rank_of_matrix(torch.zeros(3, 2)).numerical == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    left, right = factors(4, 2, 3)
    left[0, 0] = bad
    with pytest.raises(RunFailure, match="not finite"):
        rank_of_factors(left, right)
    with pytest.raises(RunFailure, match="not finite"):
        rank_of_matrix(left)


def test_shapes_without_a_product_are_refused() -> None:
    with pytest.raises(ValueError, match="no product"):
        rank_of_factors(torch.ones(3, 2), torch.ones(3, 2))


def test_layers_of_equal_shape_are_decomposed_together_and_in_order() -> None:
    pairs = [factors(40, 4, 30, seed=1), factors(20, 4, 30, seed=2), factors(40, 4, 30, seed=3), factors(40, 6, 30)]
    pairs[2] = (pairs[2][0], torch.zeros(4, 30))
    for (left, right), found in zip(pairs, ranks_of_factors(pairs), strict=True):
        alone = rank_of_factors(left, right)
        dense = torch.linalg.svdvals(left.double() @ right.double())
        assert (found.numerical, found.effective, found.norm) == (alone.numerical, alone.effective, alone.norm)
        torch.testing.assert_close(
            found.singular_values, dense[: len(found.singular_values)] if found.numerical else torch.zeros(0).double()
        )
    assert [found.numerical for found in ranks_of_factors(pairs)] == [4, 4, 0, 6]


@pytest.mark.parametrize(("out", "inner", "width"), [(20, 4, 30), (30, 40, 20), (12, 12, 12), (8, 0, 8)])
def test_orthogonality_is_the_distance_of_the_gram_matrix_from_the_identity(out: int, inner: int, width: int) -> None:
    left, right = factors(out, inner, width)
    delta = left.double() @ right.double()
    expected = float((delta @ delta.T - torch.eye(out, dtype=torch.float64)).square().sum())
    assert rank_of_factors(left, right).orthogonality == pytest.approx(expected, rel=1e-9)
    assert rank_of_matrix(delta).orthogonality == pytest.approx(expected, rel=1e-9)


def test_orthonormal_rows_are_at_distance_zero() -> None:
    rows = torch.linalg.qr(factors(20, 8, 8)[0].double()).Q.T
    assert rank_of_matrix(rows).orthogonality == pytest.approx(0, abs=1e-20)
    assert rank_of_matrix(rows.T).orthogonality == pytest.approx(12)


def test_the_tolerance_is_stated() -> None:
    left, right = factors(40, 4, 30)
    assert rank_of_factors(left, right).tolerance == 40 * torch.finfo(torch.float64).eps
    assert rank_of_factors(left, right, 0.25).tolerance == 0.25
