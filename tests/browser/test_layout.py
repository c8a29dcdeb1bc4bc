"""Every tab at three widths, light and dark: nothing lies over another or leaves the window, and axe agrees."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FullApp, Visitor
from tests.browser.test_compare import wait_for_points

pytestmark = pytest.mark.browser

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
GRAVE = {"serious", "critical"}
LAYOUT = (Path(__file__).parent / "layout.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def settle(page: Page) -> None:
    page.evaluate("layout.still(300, 5000)")


def grave(page: Page, rules: list[str] | None) -> list[dict[str, Any]]:
    return [one for one in page.evaluate("(rules) => layout.violations(rules)", rules) if one["impact"] in GRAVE]


@pytest.mark.parametrize("scheme, widths, rules", [("light", [390], None), ("dark", [768, 1440], ["color-contrast"])])
def test_every_tab_keeps_its_place_and_can_be_used_by_all(
    visitor: Visitor, scheme: str, widths: list[int], rules: list[str] | None
) -> None:
    """At every width, and by axe at the widest of each scheme: by all rules once, then by those that colours decide."""
    page = visitor.open(f"?__theme={scheme}#c=example")
    page.set_viewport_size({"width": widths[0], "height": 900})
    wait_for_points(page, "score", 0)
    expect(page.locator(".rl-form button[type=submit]")).to_be_attached()
    page.evaluate(AXE)
    page.evaluate(LAYOUT)
    for one in page.locator("[role=tab]").all():
        title = one.inner_text()
        one.click()
        expect(one).to_have_attribute("aria-selected", "true")
        settle(page)
        page.evaluate("layout.unfold()")
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            settle(page)
            assert page.evaluate("layout.astray()") == [], (title, width)
            found = grave(page, rules) if width == max(widths) else []
            assert found == [], f"{title}: {json.dumps(found, indent=1)}"
        widths = widths[::-1]  # the next tab begins at this width
