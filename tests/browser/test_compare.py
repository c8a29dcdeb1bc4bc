"""The Compare tab in a real browser, over the real engine."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import VIEWPORT, App, Visitor, get, served

pytestmark = pytest.mark.browser

LINE = 1  # of a method's two traces: band, line
SLACK = 5  # the bars are for a quiet machine; tests allow five times as much


def chart(page: Page, name: str, expression: str) -> object:
    """What Plotly holds of a chart: `plot` in the expression."""
    script = "([name, body]) => { const plot = document.querySelector(`[data-chart=${name}] .rl-plot`);"
    return page.evaluate(script + " return Function('plot', 'return ' + body)(plot); }", [name, expression])


def points(page: Page, name: str, trace: int = LINE) -> int:
    return int(str(chart(page, name, f"plot.data ? plot.data[{trace}].x.length : 0")))


def wait_for_points(page: Page, name: str, more_than: int, trace: int = LINE) -> int:
    page.wait_for_function(
        f"document.querySelector('[data-chart={name}] .rl-plot')?.data?.[{trace}].x.length > {more_than}",
        timeout=40_000,
    )
    return points(page, name, trace)


def shown_id(page: Page) -> str:
    return page.locator(".rl-recent").input_value()


def write(page: Page, field: str, text: str) -> None:
    page.locator(f'[data-field="{field}"] input').fill(text)


def open_form(page: Page) -> None:
    expect(page.locator(".rl-form button[type=submit]")).to_be_visible()
    page.locator(".rl-advanced summary").click()


@pytest.fixture
def untouched(app: App, tmp_path: Path) -> Iterator[App]:
    """The app before anything was trained on it: this one, or else another."""
    if [one["id"] for one in json.loads(get(app, "recent"))] == ["example"]:
        yield app
    else:
        with served(tmp_path) as made:
            yield made


def test_the_first_paint_is_a_finished_comparison(untouched: App, visitor: Visitor) -> None:
    assert untouched.seconds_to_ready < 10 * SLACK
    visitor.address = untouched.address
    start = time.monotonic()
    page = visitor.open()
    for name in ("score", "loss", "rank"):
        wait_for_points(page, name, 3)
    assert time.monotonic() - start < 4 * SLACK
    expect(page.locator(".rl-state")).to_have_text("shipped example")
    expect(page.locator(".rl-meta")).to_contain_text("measured on")
    expect(page.locator(".rl-table tbody tr")).to_have_count(len(page.locator(".rl-card").all()))
    expect(page.locator(".rl-shown .rl-command")).to_contain_text("python -m peft_core compare")
    expect(page.locator(".rl-again")).to_be_enabled()


def test_a_comparison_trains_live_and_outlives_the_tab(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    open_form(page)
    short = {"training.steps": "400", "training.eval_every": "10", "train_rows": "600", "eval_rows": "60"}
    for field, text in short.items():
        write(page, field, text)
    page.locator(".rl-form button[type=submit]").click()
    expect(page.locator(".rl-state")).to_have_attribute("data-state", "running")
    seen = wait_for_points(page, "loss", 2)
    grown = wait_for_points(page, "loss", seen)
    assert grown > seen
    expect(page.locator(".rl-plan")).to_contain_text(re.compile(r"workers?, (each )?in (turns|lockstep) with"))

    zoom(page, "loss")
    zoomed = chart(page, "loss", "plot.layout.xaxis.range.map((x) => Math.round(x * 100))")
    first_card = page.locator(".rl-card-name").first
    first_card.click()
    expect(first_card).to_have_attribute("aria-pressed", "false")
    assert chart(page, "loss", f"plot.data[{LINE}].visible") is False
    wait_for_points(page, "loss", points(page, "loss"))
    assert chart(page, "loss", "plot.layout.xaxis.range.map((x) => Math.round(x * 100))") == zoomed
    assert chart(page, "loss", f"plot.data[{LINE}].visible") is False

    wait_for_points(page, "rank", 1)
    page.locator(".rl-measure label", has_text="numerical").click()
    assert chart(page, "rank", "plot.layout.yaxis.title.text") == "numerical rank"
    assert chart(page, "rank", f"plot.data[{LINE}].y.at(-1)") == 4
    assert "r = 4" in str(chart(page, "rank", "plot.data.map((trace) => trace.text?.[1])"))
    page.locator(".rl-axis label", has_text="seconds").click()
    assert chart(page, "score", "plot.layout.xaxis.title.text") == "seconds of training"

    before, comparison = points(page, "loss"), shown_id(page)
    page.close()
    again, second = visitor.open(), visitor.open()
    for tab in (again, second):
        assert wait_for_points(tab, "loss", before - 1) >= before
        assert shown_id(tab) == comparison
    second.close()
    again.locator(".rl-stop").click()
    expect(again.locator(".rl-state")).to_have_attribute("data-state", "cancelled")
    expect(again.locator(".rl-resume")).to_be_visible()


def zoom(page: Page, name: str) -> None:
    """Drag over the middle of a chart."""
    box = page.locator(f"[data-chart={name}] .nsewdrag").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=5)
    page.mouse.up()
    page.wait_for_function(f"document.querySelector('[data-chart={name}] .rl-plot').layout.xaxis.range[0] > 0")


def test_the_list_of_benchmarks_comes_late_and_takes_no_message_away(visitor: Visitor) -> None:
    held: list[Route] = []
    visitor.context.route("**/ranklab/benchmarks*", lambda route: held.append(route))
    page = visitor.open("#c=example")
    open_form(page)
    write(page, "training.batch_size", "many")
    page.locator(".rl-form button[type=submit]").click()
    said = page.locator('[data-field="training.batch_size"] .rl-error')
    expect(said).to_contain_text("batch_size is 'many'")
    before = said.get_attribute("id") or ""
    held[0].continue_()
    expect(said).not_to_have_id(before)
    expect(said).to_contain_text("batch_size is 'many'")
    expect(page.locator(".rl-go .rl-error")).to_contain_text("Nothing was started")
    expect(page.locator('[data-field="training.batch_size"] input')).to_be_focused()


def test_a_bad_value_is_answered_at_its_field_and_nothing_is_lost(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    open_form(page)
    before = shown_id(page)
    page.locator(".rl-add button").click()
    write(page, "methods.0.rank", "0")
    write(page, "training.batch_size", "many")
    page.locator(".rl-form button[type=submit]").click()
    expect(page.locator('[data-field="methods.0.rank"] .rl-error')).to_contain_text("rank is 0; it must be")
    expect(page.locator('[data-field="training.batch_size"] .rl-error')).to_contain_text("batch_size is 'many'")
    expect(page.locator('[data-field="methods.0.rank"] input')).to_be_focused()
    assert page.locator('[data-field="training.batch_size"] input').input_value() == "many"
    assert shown_id(page) == before
    page.reload()
    expect(page.locator('[data-field="training.batch_size"] input')).to_have_value("many")
    expect(page.locator(".rl-row")).to_have_count(3)


def tab_to(page: Page, selector: str, backwards: bool = False) -> None:
    """Presses Tab until what is looked for has the focus."""
    for _ in range(250):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by keys")


def test_a_whole_comparison_by_keys_alone_before_two_visitors(app: App, visitor: Visitor, browser: Browser) -> None:
    page = visitor.open()
    expect(page.locator("#rl-start-from optgroup")).to_have_count(5)
    tab_to(page, "#rl-start-from")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".rl-row")).to_have_count(3)
    expect(page.locator('[data-field="seeds"] input')).to_have_value("0")
    tab_to(page, '[data-field="training.steps"] input')
    page.keyboard.press("Control+a")
    page.keyboard.type("24")
    tab_to(page, ".rl-advanced summary")
    page.keyboard.press("Enter")
    for field, text in (("train_rows", "200"), ("eval_rows", "60")):
        tab_to(page, f'[data-field="{field}"] input')
        page.keyboard.press("Control+a")
        page.keyboard.type(text)
    tab_to(page, ".rl-form button[type=submit]")
    page.keyboard.press("Enter")
    expect(page.locator(".rl-recent option:checked")).to_contain_text("d=4")
    comparison = shown_id(page)

    other = Visitor(browser.new_context(viewport=VIEWPORT), app.address)
    second = other.open()
    expect(second.locator(".rl-state")).to_have_attribute("data-state", re.compile("running|finished"), timeout=60_000)
    wait_for_points(second, "loss", 2)
    assert shown_id(second) == comparison, "a second visitor sees what runs"
    for one in (page, second):
        expect(one.locator(".rl-state")).to_have_attribute("data-state", "finished", timeout=90_000)
    assert points(second, "loss") == 24
    other.context.close()
    assert other.complaints == []

    tab_to(page, ".rl-card-name", backwards=True)
    page.keyboard.press("Space")
    expect(page.locator('.rl-card-name[aria-pressed="false"]')).to_have_count(1)
    tab_to(page, ".rl-measure input")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".rl-measure input[value=numerical]")).to_be_checked()
    tab_to(page, ".rl-step")
    page.keyboard.press("Home")
    expect(page.locator(".rl-heat-table td").first).to_have_text("0")
    page.keyboard.press("End")
    expect(page.locator(".rl-heat-table td").first).not_to_have_text("0")
    tab_to(page, ".rl-panel .rl-table thead button:not(.rl-ask)")
    page.keyboard.press("Enter")
    expect(page.locator(".rl-panel .rl-table [aria-sort]")).to_have_count(1)
    tab_to(page, ".rl-panel .rl-ask")
    page.keyboard.press("Enter")
    expect(page.locator(".rl-define")).to_be_visible()
    page.keyboard.press("Escape")
    tab_to(page, ".rl-copy")
    page.keyboard.press("Enter")
    expect(page.locator(".rl-copy")).to_have_text(re.compile("Copied|Select and copy it"))
