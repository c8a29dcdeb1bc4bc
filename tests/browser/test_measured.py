"""What the project measured, on the Papers tab: asked for when it is opened, its text never markup."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from peft_core.report.reproduction import MISSING, shown
from tests.browser.conftest import FullApp, Visitor
from tests.report.reproduced import COMMAND, MACHINE, PAIR, reproduced

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def opened(visitor: Visitor, answer: dict) -> tuple[Page, list[str]]:
    """The page as it is with this answer, and the addresses that it asks for."""
    asked: list[str] = []
    page = visitor.open("#tab=papers", asked)
    expect(page.locator(".pp-count")).to_contain_text("quoted figures")
    page.route("**/ranklab/measured", lambda route: route.fulfill(body=json.dumps(answer)))
    return page, asked


@pytest.mark.parametrize("width", [1440, 390])
def test_it_is_read_when_opened_and_stays_in_its_box(visitor: Visitor, width: int) -> None:
    page, asked = opened(visitor, shown(reproduced()))
    page.set_viewport_size({"width": width, "height": 900})
    assert "ranklab/papers/quoted" in asked and "ranklab/measured" not in asked
    page.locator(".rl-project > summary").click()
    box = page.locator(".rl-measured")
    expect(box.locator(".rl-mark")).to_contain_text(f"Measured on {MACHINE}, 1 thread; torch 2.9.9; 240 steps")
    assert box.locator("b").count() == 0
    expect(box).to_contain_text(f"{PAIR}: the 95 % t interval of the paired difference is above 0 on acceptability;")
    expect(box.locator(".rl-command")).to_have_text(COMMAND)
    first = box.locator(".rl-group").first
    assert first.locator("table").count() == 4 and first.get_attribute("open") is not None
    boosted = first.locator("table").first.locator("tbody tr").nth(1)
    expect(boosted).to_contain_text("0.823 ± 0.021")
    expect(boosted).to_contain_text("+0.103 [+0.089, +0.118]")
    for summary in box.locator(".rl-group > summary").all()[1:]:
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".rl-project > summary").click()
    page.locator(".rl-project > summary").click()
    assert asked.count("ranklab/measured") == 1


def test_what_is_not_measured_yet_is_said(visitor: Visitor) -> None:
    page, _ = opened(visitor, {"missing": MISSING})
    page.locator(".rl-project > summary").click()
    expect(page.locator(".rl-measured")).to_have_text(MISSING)
    assert page.locator(".rl-measured table").count() == 0
