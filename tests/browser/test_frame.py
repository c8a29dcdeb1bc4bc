"""The tabs in a real browser: the address selects them, keys reach them, and each loads its own part when opened."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import FullApp, Visitor
from tests.browser.test_compare import wait_for_points

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def tab(page: Page, title: str) -> Locator:
    return page.get_by_role("tab", name=title, exact=True)


def is_open(page: Page, title: str) -> None:
    expect(tab(page, title)).to_have_attribute("aria-selected", "true")


def asked(page: Page) -> list[str]:
    return page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)")


def test_a_tab_is_loaded_when_it_is_opened_and_kept_then(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    wait_for_points(page, "score", 0)
    assert not [path for path in asked(page) if "runs" in path]
    tab(page, "Runs").click()
    expect(page.locator(".rl-runs [data-run]").first).to_be_visible()
    page.locator("[name=search]").fill("bitfit")
    expect(page.locator(".rl-count")).to_contain_text("2,500")
    tab(page, "Compare").click()
    expect(page.locator(".rl-cards")).to_be_visible()
    tab(page, "Runs").click()
    expect(page.locator("[name=search]")).to_have_value("bitfit")
    assert asked(page).count("/ranklab/static/runs.js") == 1


def test_the_address_selects_the_tab_and_the_back_button_goes_back(visitor: Visitor) -> None:
    page = visitor.open("#tab=runs")
    is_open(page, "Runs")
    expect(page.locator(".rl-runs [data-run]").first).to_be_visible()
    assert not [path for path in asked(page) if path.endswith(("/view", "page.js"))]
    page.reload()
    is_open(page, "Runs")
    tab(page, "Compare").click()
    is_open(page, "Compare")
    assert "tab=" not in page.url
    page.go_back()
    is_open(page, "Runs")
    page.go_forward()
    is_open(page, "Compare")


def test_an_unknown_tab_is_no_error(visitor: Visitor) -> None:
    page = visitor.open("#tab=nowhere&c=example")
    wait_for_points(page, "score", 0)
    is_open(page, "Compare")


def test_keys_go_from_tab_to_tab(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    wait_for_points(page, "score", 0)
    tab(page, "Compare").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[role=tab]").nth(1)).to_be_focused()
    expect(page.locator("[role=tab]").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Home")
    is_open(page, "Compare")
    page.keyboard.press("End")
    expect(page.locator("[role=tab]").last).to_have_attribute("aria-selected", "true")
