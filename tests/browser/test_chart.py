"""The line chart in a real browser: what a visitor did to it survives an update, and an update is quick."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from peft_core.commands._page_browser import made_up_chart
from tests.browser.conftest import FullApp, Visitor
from tests.browser.test_compare import chart, wait_for_points, zoom

pytestmark = pytest.mark.browser

SLACK = 5  # the bar is for a quiet machine; tests allow five times as much
CURVES, POINTS, NEW = 24, 2000, 10
RANGE = "plot.layout.xaxis.range.map((x) => Math.round(1000 * x))"
MADE_UP = made_up_chart()


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


@pytest.fixture
def page(visitor: Visitor) -> Page:
    """The shipped example, over a chart of 24 made-up curves."""
    opened = visitor.open("#c=example")
    wait_for_points(opened, "score", 0)
    opened.evaluate(MADE_UP, {"curves": CURVES, "points": POINTS, "fresh": NEW})
    return opened


def drawn(page: Page, expression: str) -> object:
    return chart(page, "made-up", expression)


def test_an_update_of_24_curves_of_2000_points_is_quick_and_thinned(page: Page, record_property) -> None:
    took = sorted(page.evaluate("madeUp.updates(7)"))
    record_property("milliseconds", took)
    assert took[len(took) // 2] < 100 * SLACK
    lines = drawn(page, "plot.data.filter((trace) => trace.name).map((trace) => trace.x.length)")
    assert len(lines) == CURVES and max(lines) < POINTS / 3
    ends = drawn(page, "plot.data.filter((trace) => trace.name).map((trace) => trace.x.at(-1))")
    assert set(ends) == {POINTS + 6 * NEW}, "the newest point is drawn"
    same = "(() => { const { drawn } = madeUp.chart; madeUp.draw(); return drawn === madeUp.chart.drawn; })()"
    assert page.evaluate(same), "nothing new is nothing drawn"


def test_zoom_hidden_traces_and_hover_survive_an_update(page: Page) -> None:
    coarse = int(str(drawn(page, "plot.data[1].x.filter((x) => x > 800 && x < 1200).length")))
    zoom(page, "made-up")
    zoomed = drawn(page, RANGE)
    page.wait_for_function(
        "(few) => document.querySelector('[data-chart=made-up] .rl-plot').data[1].x"
        ".filter((x) => x > 800 && x < 1200).length > 1.5 * few",
        arg=coarse,
    )
    page.evaluate("madeUp.hidden.add('method 3'); madeUp.draw()")
    box = page.locator("[data-chart=made-up] .nsewdrag").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    label = page.locator("[data-chart=made-up] .hoverlayer .legend")
    expect(label).to_be_visible()
    page.evaluate("madeUp.updates(2)")
    expect(label).to_be_visible()
    assert drawn(page, RANGE) == zoomed
    assert drawn(page, "plot.data.find((trace) => trace.name === 'method 3').visible") is False


def test_every_point_can_be_saved_and_the_picture_too(page: Page) -> None:
    tools = page.locator('[data-chart="made-up"] .rl-chart-tools')
    with page.expect_download() as saved:
        tools.get_by_role("button", name="CSV").click()
    assert saved.value.suggested_filename == "made-up.csv"
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8"))))
    assert len(rows) == CURVES * (POINTS - NEW)
    assert set(rows[0]) == {"method", "step", "seconds", "flops", "loss"}
    kept = page.evaluate("madeUp.reported.runs.get('method 7').step.loss[99]")
    assert [float(row["loss"]) for row in rows if (row["method"], row["step"]) == ("method 7", "100")] == [kept]
    with page.expect_download() as picture:
        tools.get_by_role("button", name="PNG").click()
    assert Path(picture.value.path()).read_bytes()[:4] == b"\x89PNG"


def test_every_figure_has_a_definition_and_every_chart_a_table(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    wait_for_points(page, "score", 0)
    figure = page.locator('[data-chart="score"]')
    figure.get_by_role("button", name="Table").click()
    table = figure.locator(".rl-twin table")
    expect(table.locator("thead th")).to_have_count(1 + page.locator(".rl-card").count())
    last = f"{float(str(chart(page, 'score', 'plot.data[1].y.at(-1)'))):.3f}"
    expect(table.locator("tbody tr").last.locator("td").first).to_contain_text(last)
    assert last in str(figure.locator(".rl-plot").get_attribute("aria-label"))

    figure.locator(".rl-ask").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".rl-define")).to_contain_text("Source: Matthews 1975")
    page.keyboard.press("Escape")
    expect(page.locator(".rl-define")).to_have_count(0)
    expect(figure.locator(".rl-ask")).to_be_focused()

    card = page.locator(".rl-card").first
    assert card.locator("dt").count() == card.locator("dt .rl-term").count() > 0
    head = page.locator(".rl-panel .rl-table thead")
    assert head.locator(".rl-ask").count() == head.locator("th").count() - 1, "all but the method's name"
    for one in page.locator("[data-pareto] .rl-ask, .rl-bars .rl-ask").all():
        one.click()
        expect(page.locator(".rl-define p").first).not_to_be_empty()
        page.keyboard.press("Escape")

    page.locator(".rl-pause").check()
    page.locator(".rl-axis label", has_text="seconds").click()
    assert chart(page, "score", "plot.layout.xaxis.title.text") == "step", "a pause freezes the charts"
    page.locator(".rl-pause").uncheck()
    changed = "document.querySelector('[data-chart=score] .rl-plot').layout.xaxis.title.text === 'seconds of training'"
    page.wait_for_function(changed)
