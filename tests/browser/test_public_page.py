"""A public page as its visitors see it: what may be asked for, the place in the queue, and why nothing starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import VIEWPORT, App, served

pytestmark = pytest.mark.browser
LIMITS = {"QUEUE": "1", "STEPS": "900"}


@pytest.fixture(scope="module")
def public_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKLAB_PUBLIC", "1")
        for name, value in LIMITS.items():
            patch.setenv(f"RANKLAB_PUBLIC_{name}", value)
        with served(tmp_path_factory.mktemp("public")) as made:
            yield made


def somebody(browser: Browser, app: App) -> Page:
    page = browser.new_context(viewport=VIEWPORT).new_page()
    page.goto(app.address)
    expect(start_of(page)).to_be_visible(timeout=60_000)
    return page


def start_of(page: Page) -> Locator:
    return page.get_by_role("button", name="Start", exact=True)


def begin(page: Page, steps: str) -> None:
    page.locator("[data-field='training.steps'] input").fill(steps)
    start_of(page).click()


def test_limits_place_and_refusals_are_seen(browser: Browser, public_app: App) -> None:
    one = somebody(browser, public_app)
    length = one.locator("[data-field='training.steps']")
    expect(length.locator("label")).to_have_text("length up to 900")
    one.get_by_label("unit of the length").select_option("epochs")
    expect(one.locator("[data-field='training.epochs'] label")).to_have_text("length up to 10")
    one.get_by_label("unit of the length").select_option("steps")
    expect(one.locator("[data-field='seeds'] label")).to_have_text("seeds up to 24 runs")
    begin(one, "901")
    expect(length.locator(".rl-error")).to_have_text(
        "901 steps are asked for, and 900 are the most on this public page; run it on a machine of your own for more."
    )
    begin(one, "900")
    expect(one.locator(".rl-state").filter(has_text="running")).to_be_visible(timeout=60_000)

    two = somebody(browser, public_app)
    begin(two, "900")
    expect(two.get_by_text("queued, place 1")).to_be_visible()

    three = somebody(browser, public_app)
    begin(three, "900")
    full = three.get_by_role("alert").filter(has_text="The queue is full: one comparison is waiting")
    expect(full).to_be_in_viewport()
    assert three.evaluate(
        """element => { const box = element.getBoundingClientRect();
        return element.contains(document.elementFromPoint(box.x + 5, box.y + box.height / 2)); }""",
        full.element_handle(),
    ), "it stands above whatever else is there"
    for page in (two, one):
        page.get_by_role("button", name="Stop", exact=True).click()
    for page in (one, two, three):
        page.context.close()
