"""The tabs in a real browser: the address selects them, keys reach them, and each loads its own part when opened."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visitor
from tests.browser.test_compare import wait_for_points

pytestmark = pytest.mark.browser


def tab(page: Page, title: str) -> Locator:
    return page.get_by_role("tab", name=title, exact=True)


def test_the_first_tab_is_open_and_an_unknown_one_is_no_error(visitor: Visitor) -> None:
    page = visitor.open("#tab=nowhere")
    wait_for_points(page, "score", 0)
    expect(tab(page, "Compare")).to_have_attribute("aria-selected", "true")
