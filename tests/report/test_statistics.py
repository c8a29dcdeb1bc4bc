"""Means, spreads and paired differences."""

from __future__ import annotations

import pytest
import scipy.stats

from peft_core.report.statistics import paired, spread


def test_spread_agrees_with_scipy() -> None:
    values = [0.61, 0.64, 0.59, 0.7]
    line = spread(values)
    low, high = scipy.stats.t.interval(0.95, 3, loc=line["mean"], scale=scipy.stats.sem(values))
    assert line["ci95"] == pytest.approx([low, high])
    assert line["n"] == 4


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    assert spread([0.5]) == {"n": 1, "mean": 0.5, "std": None, "ci95": None}
    assert spread([]) == {"n": 0, "mean": None, "std": None, "ci95": None}


def test_differences_pair_the_seeds_that_both_have() -> None:
    line = paired({0: 0.7, 1: 0.9, 2: 0.1}, {0: 0.6, 1: 0.7, 5: 0.0}, "lora")
    expected = scipy.stats.ttest_rel([0.7, 0.9], [0.6, 0.7]).confidence_interval(0.95)
    assert line["n"] == 2
    assert line["mean_difference"] == pytest.approx(0.15)
    assert line["ci95"] == pytest.approx([expected.low, expected.high])


def test_a_single_pair_says_so_with_null() -> None:
    line = paired({0: 0.7}, {0: 0.6}, "lora")
    assert (line["n"], line["ci95"]) == (1, None)
    assert line["mean_difference"] == pytest.approx(0.1)
