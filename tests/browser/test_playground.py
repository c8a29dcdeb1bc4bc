"""The Rank playground in a real browser: its sliders, its draws, a fit, keys, a narrow window."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FullApp, Visitor

pytestmark = pytest.mark.browser

BAR, SLACK = 150, 5  # milliseconds of a slider's answer; tests allow five times as much
SLOW = 40_000
"""Milliseconds for the first answer, which has to import the engine."""


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def opened(visitor: Visitor, address: str = "#tab=playground") -> Page:
    page = visitor.open(address)
    page.wait_for_selector(".pg[data-answered]", timeout=SLOW)
    return page


def answered(page: Page, number: int) -> dict:
    script = "number => JSON.parse(document.querySelector('.pg').dataset.answered).number >= number"
    page.wait_for_function(script, arg=number)
    return json.loads(page.get_attribute(".pg", "data-answered") or "")


def plotted(page: Page, name: str, trace: int) -> list[float]:
    page.wait_for_function(f"document.querySelector('[data-pg={name}] .rl-plot').data?.length > {trace}")
    return page.evaluate(f"Array.from(document.querySelector('[data-pg={name}] .rl-plot').data[{trace}].y)")


def test_the_tab_loads_when_it_is_opened_and_sliders_answer(visitor: Visitor) -> None:
    page = visitor.open()
    page.wait_for_selector(".rl-state:not([data-state=''])")
    assert "playground.js" not in page.evaluate("performance.getEntries().map(entry => entry.name).join()")
    page.get_by_role("tab", name="Rank playground").click()
    page.wait_for_selector(".pg[data-answered]", timeout=SLOW)
    expect(page.locator(".pg-rank-value")).to_have_text("rank 16")
    counted = re.compile(r"100.0 % of \d+ draws have rank d·r = 16")
    expect(page.locator(".pg-share")).to_contain_text(counted, timeout=SLOW)
    assert plotted(page, "branches", 2) == [8 * d for d in range(1, 9)]

    slider = page.get_by_label("branches d")
    slider.focus()
    times = []
    for number in (2, 3):
        page.keyboard.press("ArrowRight")
        times.append(answered(page, number)["milliseconds"])
    expect(page.locator(".pg-rank-value")).to_have_text("rank 32")
    assert len(plotted(page, "spectrum", 0)) == 32
    expect(page.locator('[data-tensor="a"] canvas')).to_have_count(6)
    assert page.evaluate("location.hash").endswith("p=d%3D4")

    page.get_by_role("button", name="Above the layer").click()
    expect(page.locator(".pg-why")).to_contain_text("no 64 x 64 matrix has more rank than 64")
    page.get_by_role("button", name="Only A masked").click()
    expect(page.locator(".pg-why")).to_contain_text("same B")
    expect(page.locator('[data-tensor="b"] canvas')).to_have_count(1)
    times.append(answered(page, 5)["milliseconds"])
    assert min(times) < BAR * SLACK
    page.locator("#pg-seed").fill("many")
    expect(page.locator(".pg-notes")).to_contain_text("seed is 'many'")


def test_the_address_gives_the_pair_and_what_is_out_of_range_is_said(visitor: Visitor) -> None:
    page = opened(visitor, "#tab=playground&p=r%3D6;d%3D99;masks%3D2:4;out%3D64;in%3D64")
    expect(page.locator(".pg-notes")).to_contain_text("d was set to 8")
    expect(page.locator(".pg-notes")).to_contain_text("r was set to 8")
    expect(page.locator(".pg-rank-value")).to_have_text("rank 64")
    term = page.locator('.pg-figures [data-term="stable"]')
    term.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Source: Rudelson and Vershynin")
    page.keyboard.press("Escape")
    expect(term).to_be_focused()


def test_a_target_is_fitted_and_a_narrow_window_holds_it(visitor: Visitor) -> None:
    page = opened(visitor, "?__theme=dark#tab=playground")
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator(".pg-fit").scroll_into_view_if_needed()
    page.wait_for_selector(".pg[data-fitted]", timeout=SLOW)
    rows = page.locator(".pg-table tbody tr")
    expect(rows).to_have_count(5)
    expect(rows.nth(1)).to_contain_text("0.500, exact optimum")
    assert plotted(page, "fit", 0)[-1] == pytest.approx(0.375, abs=0.005)
    page.get_by_label("equal parameters").check()
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(rows.nth(4)).to_contain_text("CapaBoost r=6 d=2 s=0.2")
    page.locator("#pg-pair-0-rank").fill("x")
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(page.locator(".pg-fit .rl-error")).to_contain_text("pairs.0.rank is 'x'")
    page.locator("#pg-target").select_option("run")
    expect(page.locator(".pg-fit-form")).to_contain_text("No full fine-tuning run has finished here yet")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for box in (".pg .rl-side", ".pg-fit-form", ".pg-controls"):
        assert page.eval_on_selector(box, "box => box.scrollWidth <= box.clientWidth")


def test_every_chart_can_be_saved_and_read_as_a_table(visitor: Visitor) -> None:
    page = opened(visitor, "#tab=playground&p=r%3D2;out%3D16;in%3D16")
    for name, rows in (("branches", 8), ("spectrum", 4)):
        plotted(page, name, 1)
        figure = page.locator(f"[data-pg={name}]")
        figure.get_by_role("button", name="Table").click()
        expect(figure.locator(".rl-twin tbody tr")).to_have_count(rows, timeout=SLOW)
        with page.expect_download() as points:
            figure.get_by_role("button", name="CSV").click()
        assert len(points.value.path().read_text("utf-8").splitlines()) == rows + 1
    for panel in ("masks", "delta"):
        with page.expect_download() as picture:
            page.locator(f'.rl-panel-head:has([data-term="{panel}"])').get_by_role("button", name="PNG").click()
        assert picture.value.path().read_bytes()[:4] == b"\x89PNG"
