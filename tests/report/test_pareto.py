"""The Pareto front, against its definition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_core.report.figures import pareto_figure
from peft_core.report.pareto import front, fronts
from peft_core.report.tables import rows
from tests.report.sample import METHODS, sample_view

FIGURE = st.one_of(st.none(), st.integers(0, 6).map(float), st.just(math.nan), st.just(math.inf))
POINTS = st.lists(st.tuples(FIGURE, FIGURE), max_size=12)


def beats(one: tuple[float, float], other: tuple[float, float], higher: tuple[bool, bool]) -> bool:
    better = [a > b if more else a < b for a, b, more in zip(one, other, higher, strict=True)]
    return any(better) and all(is_better or a == b for is_better, a, b in zip(better, one, other, strict=True))


@given(POINTS, st.tuples(st.booleans(), st.booleans()))
def test_the_front_is_what_nothing_beats(points: list, higher: tuple[bool, bool]) -> None:
    whole = [all(value is not None and math.isfinite(value) for value in point) for point in points]
    expected = [
        known and not any(there and beats(other, point, higher) for other, there in zip(points, whole, strict=True))
        for point, known in zip(points, whole, strict=True)
    ]
    assert front(points, higher) == expected


def test_a_missing_figure_is_no_zero() -> None:
    table = rows(sample_view())
    table[1]["stored_bytes"] = None
    found = fronts(table)
    assert found["fronts"]["stored_bytes mean"] == [METHODS[0]], "the better score has no stored bytes"
    assert found["fronts"]["trainable mean"] == [METHODS[1]]
    drawn = pareto_figure(table, found, "stored_bytes", "mean")
    assert [trace["name"] for trace in drawn["data"]] == ["Pareto front", METHODS[0]]
    assert METHODS[1] in drawn["layout"]["xaxis"]["title"]["text"]


def test_a_figure_that_nobody_has_is_not_offered() -> None:
    table = [{**row, "peak_memory_bytes": None} for row in rows(sample_view())]
    keys = [measure["key"] for measure in fronts(table)["measures"]]
    assert "peak_memory_bytes" not in keys and "mean" in keys
    assert fronts([]) == {"measures": [], "points": {}, "fronts": {}}


@pytest.mark.parametrize("x", ["trainable", "mean", "adapter_flops_executed"])
def test_the_chart_holds_the_rows_figures(x: str) -> None:
    table = rows(sample_view())
    found = fronts(table)
    y = "stored_bytes"
    line, *dots = pareto_figure(table, found, x, y)["data"]
    assert [(dot["x"], dot["y"]) for dot in dots] == [([row[x]], [row[y]]) for row in table]
    assert line["x"] == [found["points"][label][x] for label in found["fronts"][f"{x} {y}"]]
