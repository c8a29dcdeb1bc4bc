"""Events to curves."""

from __future__ import annotations

import pytest

from peft_core.records import View
from peft_core.report import report_html
from peft_core.report.series import curves, decimated, points, smoothed, spectra
from peft_core.report.wire import packed
from tests.report.sample import METRIC, sample_view


def test_a_curve_is_the_mean_over_seeds_with_their_range() -> None:
    view = sample_view()
    line = curves(view, "score")[0]
    scores = {
        (event["run"], event["step"]): event["scores"][METRIC] for event in view.events if event["event"] == "eval"
    }
    first, second = scores[("c1-0", int(line.x[-1]))], scores[("c1-2", int(line.x[-1]))]
    assert line.y[-1] == pytest.approx((first + second) / 2)
    assert (line.low[-1], line.high[-1]) == (min(first, second), max(first, second))
    assert set(line.n) == {2}


@pytest.mark.parametrize("axis, last", [("step", 60), ("seconds", 1.8), ("flops", 120e9)])
def test_the_x_axis_is_what_the_steps_had_used(axis: str, last: float) -> None:
    line = curves(sample_view(), "loss", axis)[0]
    assert line.x[-1] == pytest.approx(last)
    assert curves(sample_view(), "score", axis)[0].x[-1] == pytest.approx(last)


def test_ranks_are_means_over_layers() -> None:
    lines = curves(sample_view(), "numerical")
    assert [line.y[-1] for line in lines] == [4, 8]


def test_a_resumed_run_replaces_what_it_repeats() -> None:
    events = [
        {"event": "step", "run": "a", "step": step, "loss": loss} for step, loss in [(1, 9), (2, 9), (3, 9), (2, 5)]
    ]
    assert points(events)["a"].steps["step"] == [1, 2]
    assert points(events)["a"].steps["loss"] == [9, 5]


def test_missing_figures_leave_gaps() -> None:
    view = sample_view(steps=3)
    broken = [
        {**event, "loss": None} if event["event"] == "step" and event["step"] == 2 else event for event in view.events
    ]
    line = curves(view.model_copy(update={"events": broken}), "loss")[0]
    assert line.x == [1, 3]


def test_smoothing_keeps_the_level_and_gaps() -> None:
    assert smoothed([2.0, None, 2.0], 0.9) == [pytest.approx(2.0), None, pytest.approx(2.0)]
    assert smoothed([1.0, 3.0], 0.0) == [1.0, 3.0]


@pytest.mark.parametrize("count, limit", [(5, 10), (1000, 10), (11, 10)])
def test_decimation_keeps_both_ends(count: int, limit: int) -> None:
    kept = decimated(range(count), limit)
    assert len(kept) <= limit
    assert (kept[0], kept[-1]) == (0, count - 1)


def test_packing_thins_long_runs_and_rounds() -> None:
    events = [{"event": "step", "run": "a", "step": step, "loss": 1 / 3, "seconds": 0.1} for step in range(1, 5002)]
    columns = packed(events, METRIC)["a"]["step"]
    assert len(columns["step"]) <= 2000
    assert columns["step"][-1] == 5001
    assert columns["loss"][0] == 0.333333


def with_spectra(view: View, recorded: dict[int, list[list[float]]]) -> View:
    """The view whose layers recorded these singular values at these steps."""
    events = []
    for event in view.events:
        if event["event"] == "rank" and event["step"] in recorded:
            pairs = zip(event["layers"], recorded[event["step"]], strict=False)
            event = {**event, "layers": [{**layer, "spectrum": values} for layer, values in pairs]}
        events.append(event)
    return view.model_copy(update={"events": events})


def test_a_spectrum_is_a_mean_over_layers_at_the_selected_evaluation() -> None:
    view = sample_view()
    assert [line.x for line in spectra(view)] == [[], []], "nothing recorded"
    early, late = [[9.0, 9.0]], [[4.0, 2.0, 1.0], [2.0, 1.0]]
    line = spectra(with_spectra(view, {30: early, 60: late}))[0]
    assert (line.x, line.y, line.n) == ([1, 2, 3], [3.0, 1.5, 1.0], [2, 2, 2])
    chosen = tuple(
        run.model_copy(update={"result": run.result.model_copy(update={"selected_step": 30})}) if run.result else run
        for run in view.runs
    )
    line = spectra(with_spectra(view.model_copy(update={"runs": chosen}), {30: early, 60: late}))[0]
    assert line.y == [9.0, 9.0]


def test_the_report_draws_a_spectrum_where_one_was_recorded() -> None:
    assert "Singular values" not in report_html(sample_view())
    assert "Singular values, mean over layers" in report_html(with_spectra(sample_view(), {60: [[4.0, 2.0]]}))
