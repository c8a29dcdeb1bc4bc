"""report.html of a real comparison, opened without a network: it shows the figures of results.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from peft_core.records import MethodSpec
from peft_core.report import tables
from tests.browser.conftest import App, finished, get, post

pytestmark = pytest.mark.browser

METHODS = ("lora:rank=4", "capaboost_lora:rank=4,d=2", "adapter_pfeiffer:bottleneck=4", "prefix:length=2", "bitfit")
METHODS += ("head",)
SEEDS = 3


@pytest.fixture(scope="module")
def made(app: App, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results and the report of six methods on three seeds, as the page offers them."""
    methods = [{"id": method.id, "options": dict(method.options)} for method in map(MethodSpec.parse, METHODS)]
    training = {"steps": "4", "eval_every": "2", "batch_size": "8", "device": "cpu"}
    sizes = {"train_rows": "64", "eval_rows": "40", "seeds": ",".join(map(str, range(SEEDS))), "training": training}
    comparison = post(app, "start", model="tiny-text", task="acceptability", methods=methods, **sizes)["id"]
    finished(app, comparison)
    out = tmp_path_factory.mktemp("report")
    for name, kind in (("report.html", "html"), ("results.json", "json")):
        (out / name).write_bytes(get(app, f"download?id={comparison}&format={kind}"))
    return out


@pytest.fixture(scope="module")
def results(made: Path) -> dict[str, Any]:
    return json.loads((made / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(made: Path, browser: Browser) -> Iterator[Page]:
    """The report in a window without a network. Whatever it asks for beside itself fails the test."""
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 1000})
    opened, complaints = context.new_page(), []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    address = (made / "report.html").as_uri()
    own = (address, "data:", "blob:")
    opened.on("request", lambda asked: None if asked.url.startswith(own) else complaints.append(asked.url))
    opened.goto(address)
    opened.wait_for_function("[...document.querySelectorAll('[data-figure], #pareto')].every((plot) => plot.data)")
    yield opened
    assert complaints == []
    context.close()


def charts(page: Page) -> dict[str, Any]:
    """What Plotly holds, by the chart's title."""
    script = "plots => plots.map((plot) => [plot.layout.title.text, plot.data])"
    return dict(page.eval_on_selector_all("[data-figure], #pareto", script))


def of(results: dict[str, Any], label: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["label"] == label]


def test_the_table_shows_the_summary(page: Page, results: dict[str, Any]) -> None:
    head = page.locator("thead th").all_inner_texts()
    body = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    shown = [dict(zip(head, cells, strict=True)) for cells in body]
    assert [row["method"] for row in shown] == [entry["label"] for entry in results["summary"]] == list(METHODS)
    for row, entry in zip(shown, results["summary"], strict=True):
        runs = of(results, entry["label"])
        assert int(row["n"]) == entry["n"] == len(runs) == SEEDS
        assert row["score, mean ± std"] == f"{entry['mean']:.3f} ± {entry['std']:.3f}"
        scores = [run["score"][results["comparison"]["metric"]] for run in runs]
        assert entry["mean"] == pytest.approx(fmean(scores))
        assert row["trainable"] == tables.number(fmean(run["trainable"] for run in runs))
        assert row["stored bytes"] == tables.number(fmean(run["stored_bytes"] for run in runs))
        versus = entry["versus"]
        if versus is None:
            assert row["paired difference [95 %]"] == "–"
            continue
        numbers = [float(text) for text in re.findall(r"[+-]\d+\.\d+", row["paired difference [95 %]"])]
        assert numbers == pytest.approx([versus["mean_difference"], *versus["ci95"]], abs=5.01e-4)
        assert versus["bootstrap95"] is None and versus["note"] is None
    assert "95 % t interval over seeds" in page.locator("body").inner_text()


def test_the_curves_are_the_runs(page: Page, results: dict[str, Any]) -> None:
    lines = [trace for trace in charts(page)[results["comparison"]["metric"]] if trace.get("name")]
    assert [trace["name"] for trace in lines] == list(METHODS)
    for trace in lines:
        curves = [dict(run["curve"]) for run in of(results, trace["name"])]
        assert trace["x"] == sorted(curves[0]) == [0, 2, 4]
        assert trace["y"] == pytest.approx([fmean(curve[step] for curve in curves) for step in trace["x"]])


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("Trainable parameters, head left out", "trainable"),
        ("Adapter FLOPs per token, nominal", "adapter_flops_nominal"),
        ("Adapter FLOPs per token, executed", "adapter_flops_executed"),
        ("Stored bytes, head left out", "stored_bytes"),
        ("Step time, median, ms", "step_ms_median"),
    ],
)
def test_the_bars_are_the_figures(page: Page, results: dict[str, Any], title: str, key: str) -> None:
    (bars,) = charts(page)[title]
    assert bars["y"] == list(METHODS)
    assert bars["x"] == pytest.approx([fmean(run[key] for run in of(results, label)) for label in METHODS])


def test_the_pareto_front_is_of_the_figures_that_are_chosen(page: Page, results: dict[str, Any]) -> None:
    metric = results["comparison"]["metric"]
    figures = {
        "mean": {label: fmean(run["score"][metric] for run in of(results, label)) for label in METHODS},
        "trainable": {label: fmean(run["trainable"] for run in of(results, label)) for label in METHODS},
        "stored_bytes": {label: fmean(run["stored_bytes"] for run in of(results, label)) for label in METHODS},
    }
    for x in ("stored_bytes", "trainable"):
        page.select_option("#pareto-x", x)
        front, *dots = charts(page)["Pareto front"]
        assert [dot["name"] for dot in dots] == list(METHODS)
        for dot in dots:
            assert (dot["x"], dot["y"]) == ([figures[x][dot["name"]]], [pytest.approx(figures["mean"][dot["name"]])])
        best = [
            label
            for label in METHODS
            if not any(
                figures[x][other] <= figures[x][label]
                and figures["mean"][other] >= figures["mean"][label]
                and (figures[x][other], figures["mean"][other]) != (figures[x][label], figures["mean"][label])
                for other in METHODS
            )
        ]
        assert sorted(front["x"]) == sorted(figures[x][label] for label in best)


def test_the_same_figure_is_never_on_both_axes(page: Page) -> None:
    page.select_option("#pareto-x", "mean")
    assert page.locator("#pareto-y").input_value() != "mean"
    page.select_option("#pareto-x", "trainable")
    page.select_option("#pareto-y", "mean")


def test_what_ran_and_where_is_in_the_report(page: Page, results: dict[str, Any]) -> None:
    blocks = [json.loads(text) for text in page.locator("pre").all_inner_texts()]
    frozen = {key: value for key, value in results["comparison"].items() if key in blocks[0]}
    assert blocks[0] == frozen
    assert blocks[1] == {run["label"]: run["config"] for run in results["runs"]}
    assert blocks[2] == {"plan": results["plan"], **results["environment"]}


def test_the_charts_answer_to_the_mouse(page: Page) -> None:
    """Zooming by a drag is Plotly's own: it must be there without a network."""
    plot = page.locator("[data-figure]").first
    plot.scroll_into_view_if_needed()
    box = plot.locator(".nsewdrag").first.bounding_box()
    assert box
    before = plot.evaluate("plot => plot.layout.xaxis.range")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    zoomed = "before => document.querySelector('[data-figure]').layout.xaxis.range[0] > before[0]"
    page.wait_for_function(zoomed, arg=before)
