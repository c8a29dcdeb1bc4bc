"""Means, spreads, paired differences, tests and their correction, against scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peft_core.report.statistics import BOOTSTRAP, ONE_SEED, holm, paired, sign_flip_p, spread

SCORES = st.integers(-1000, 1000).map(lambda value: value / 1000)


def pairs(least: int, most: int) -> st.SearchStrategy[list[tuple[float, float]]]:
    return st.lists(st.tuples(SCORES, SCORES), min_size=least, max_size=most)


@given(st.lists(SCORES, min_size=2, max_size=12))
def test_spread_agrees_with_scipy(values: list[float]) -> None:
    assume(np.ptp(values) > 0)
    line = spread(values)
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert line["ci95"] == pytest.approx([low, high], abs=1e-9)
    assert (line["n"], line["std"]) == (len(values), pytest.approx(np.std(values, ddof=1)))


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    assert spread([0.5]) == {"n": 1, "mean": 0.5, "std": None, "ci95": None}
    assert spread([]) == {"n": 0, "mean": None, "std": None, "ci95": None}


@given(pairs(2, 12))
def test_a_paired_difference_agrees_with_scipy(found: list[tuple[float, float]]) -> None:
    ours, theirs = ({seed: pair[side] for seed, pair in enumerate(found)} for side in (0, 1))
    differences = [a - b for a, b in found]
    assume(np.ptp(differences) > 1e-6)
    line = paired(ours | {77: 0.1}, theirs | {88: 0.9}, "reference")
    expected = scipy.stats.ttest_rel(*zip(*found, strict=True)).confidence_interval(0.95)
    assert line["n"] == len(found), "seeds that only one of them has are left out"
    assert line["mean_difference"] == pytest.approx(np.mean(differences), abs=1e-12)
    assert line["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-9)
    assert line["std"] == pytest.approx(np.std(differences, ddof=1))
    assert (line["bootstrap95"], line["note"]) == (None, None)


@settings(max_examples=40, deadline=None)
@given(st.lists(SCORES, min_size=6, max_size=9))
def test_sign_flips_agree_with_scipy(differences: list[float]) -> None:
    # scipy's observed sum and our own round differently where flips tie; whole numbers have no such question.
    whole = [round(1000 * value) for value in differences]
    expected = scipy.stats.permutation_test(
        (whole,), np.sum, permutation_type="samples", vectorized=False, n_resamples=np.inf
    )
    assert sign_flip_p(whole) == pytest.approx(min(1.0, expected.pvalue))
    assert sign_flip_p(differences) == pytest.approx(sign_flip_p(whole)), "ties are ties on any scale"


def test_sign_flips_need_six_pairs_and_are_drawn_beyond_sixteen() -> None:
    assert sign_flip_p([1.0] * 5) is None
    assert sign_flip_p([1.0] * 6) == 2 / 64
    assert sign_flip_p([0.0] * 6) == 1.0
    values = list(np.random.default_rng(1).normal(0.5, 1, 17))
    sums = np.array([np.dot(signs, np.abs(values)) for signs in product((-1, 1), repeat=17)])
    exact = float((np.abs(sums) >= abs(sum(values)) - 1e-12).mean())
    drawn = sign_flip_p(values)
    assert drawn == sign_flip_p(values), "from a fixed key"
    assert drawn == pytest.approx(exact, abs=4 * (exact / 20_000) ** 0.5), "four standard errors"
    assert sign_flip_p([1.0] * 40) == 1 / 20_000, "never 0"


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([None, None]) == [None, None]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_rejects_what_its_steps_reject(values: list[float | None]) -> None:
    corrected, known = holm(values), sorted(value for value in values if value is not None)
    assert [value is None for value in corrected] == [value is None for value in values]
    for level in (0.01, 0.05, 0.5):
        failing = [place for place, value in enumerate(known) if value * (len(known) - place) > level]
        limit = known[failing[0]] if failing else 2.0
        for value, other in zip(values, corrected, strict=True):
            assert value is None or (other is not None and (other <= level) == (value < limit))


def test_a_single_seed_says_so_and_resamples_rows() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.7, 0.1, (2, 1000))
    line = paired({3: 0.72}, {3: 0.7, 4: 0.1}, "lora", {3: ours}, {3: theirs})
    assert (line["n"], line["ci95"], line["p_sign_flip"]) == (1, None, None)
    assert line["bootstrap95"] == pytest.approx(np.quantile(ours - theirs, [0.025, 0.975]))
    assert ONE_SEED in str(line["note"]) and BOOTSTRAP in str(line["note"])


def test_no_bootstrap_over_other_rows_or_undefined_scores() -> None:
    full = [0.1] * 20
    for other in ({}, {0: [0.1] * 10}, {1: full}, {0: [None] * 3 + [0.1] * 17}):
        line = paired({0: 0.7}, {0: 0.6}, "lora", {0: full}, other)
        assert (line["bootstrap95"], line["note"]) == (None, ONE_SEED)
    assert paired({0: 0.7}, {0: 0.6}, "lora", {0: full}, {0: [None] + [0.3] * 19})["bootstrap95"] == pytest.approx(
        [-0.2, -0.2]
    )


def test_two_seeds_are_never_mixed_with_rows() -> None:
    full = {seed: [0.1 * seed] * 20 for seed in (0, 1)}
    line = paired({0: 0.7, 1: 0.8}, {0: 0.6, 1: 0.6}, "lora", full, full)
    assert line["bootstrap95"] is None and line["ci95"] is not None
    assert paired({0: 0.7}, {1: 0.8}, "lora")["note"] == "no seed in common with the reference"
