"""The Try it tab in a real browser: draw, upload, type; every method answers; the rows they disagree on."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visitor, finished, post

pytestmark = pytest.mark.browser

METHODS = [{"id": "lora", "options": {"rank": "2", "learning_rate": "0.05"}}, {"id": "bitfit", "options": {}}]
SIZES = {"train_rows": "64", "eval_rows": "40", "seeds": "0", "training": {"steps": "6"}, "methods": METHODS}
LIMIT = 60_000  # milliseconds: the first question starts the models' process


@pytest.fixture(scope="module")
def trained(app: App) -> dict[str, str]:
    """Comparisons of two methods by task."""
    models = {"sentiment": "tiny-text", "digits": "tiny-vision"}
    made = {task: post(app, "start", model=model, task=task, **SIZES)["id"] for task, model in models.items()}
    finished(app, *made.values())
    return made


def answered(page: Page, methods: int = 2) -> None:
    expect(page.locator(".rl-answers .rl-answer")).to_have_count(methods, timeout=LIMIT)


def test_without_weights_the_tab_says_why_and_where_to_go(app: App, visitor: Visitor) -> None:
    nothing_yet = app.menu_at_first
    assert "comes without its weights" in nothing_yet["nothing"]
    visitor.context.route("**/tryit/menu*", lambda route: route.fulfill(json=nothing_yet))
    page = visitor.open("#tab=try")
    expect(page.locator(".rl-nothing p")).to_contain_text("Start one in the Compare tab")
    page.get_by_role("button", name="Go to Compare").click()
    expect(page.get_by_role("tab", name="Compare", exact=True)).to_have_attribute("aria-selected", "true")


def test_a_digit_is_drawn_a_picture_is_chosen_and_every_method_answers(
    visitor: Visitor, trained: dict[str, str]
) -> None:
    page = visitor.open("#tab=try&c=example")
    expect(page.locator(".rl-instead")).to_contain_text("example comes without its weights")
    ask = page.get_by_role("button", name="Ask", exact=True)
    expect(ask).to_be_visible(timeout=LIMIT)
    expect(page.locator("[name=comparison]")).to_have_value(trained["digits"])
    ask.click()
    expect(page.locator(".rl-asking .rl-error")).to_have_text("Draw something or choose a picture first.")
    field = page.locator("canvas")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 110, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 110, box["y"] + 190, steps=8)
    page.mouse.up()
    answered(page)
    assert page.locator(".rl-answers .rl-barrow").count() == 20
    shares = page.locator(".rl-answers article").first.locator(".rl-barvalue").all_inner_texts()
    assert sum(float(text.removesuffix(" %")) for text in shares) == pytest.approx(100, abs=0.6)
    drawn = page.locator(".rl-answers").inner_text()
    with page.expect_response("**/tryit/picture?*"):
        page.get_by_role("button", name="Example 1").click()
    expect(page.locator(".rl-answers")).not_to_have_text(drawn)
    large = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(large, "PNG")
    page.locator("[name=picture]").set_input_files(
        {"name": "large.png", "mimeType": "image/png", "buffer": large.getvalue()}
    )
    expect(page.locator(".rl-asking .rl-error")).to_contain_text("9000 x 9000 pixels")


def test_keys_alone_ask_and_find_the_rows_with_different_answers(visitor: Visitor, trained: dict[str, str]) -> None:
    page = visitor.open(f"#tab=try&try={trained['digits']}")
    expect(page.locator("canvas")).to_be_visible(timeout=LIMIT)
    page.locator("canvas").focus()
    page.keyboard.down("Shift")
    for _ in range(9):
        page.keyboard.press("ArrowDown")
    page.keyboard.up("Shift")
    answered(page)
    page.get_by_role("button", name="Find them").press("Enter")
    expect(page.locator(".rl-rows-differ tbody tr").first).to_be_visible(timeout=LIMIT)
    expect(page.locator(".rl-differ-state")).to_contain_text("of 40 evaluation rows")
    rows = page.locator(".rl-rows-differ tbody tr")
    assert rows.count() >= 1
    header = page.locator('.rl-rows-differ [data-sort="truth"]')
    header.press("Enter")
    expect(page.locator('.rl-rows-differ [aria-sort="ascending"]')).to_contain_text("true answer")
    expect(header).to_be_focused()
    truths = rows.locator("td:nth-child(3)").all_inner_texts()
    assert truths == sorted(truths)
    page.locator("[name=truth]").select_option(truths[0])
    expect(page.locator(".rl-count")).to_contain_text(f"of {truths.count(truths[0])} rows")


@pytest.mark.parametrize("width, scheme", [(390, "dark"), (1440, "light")])
def test_a_text_is_answered_at_any_width(visitor: Visitor, trained: dict[str, str], width: int, scheme: str) -> None:
    page = visitor.open(f"?__theme={scheme}#tab=try&try={trained['sentiment']}")
    page.set_viewport_size({"width": width, "height": 900})
    text = page.locator("[name=text]")
    expect(text).to_be_visible(timeout=LIMIT)
    text.fill("A fine film.")
    answered(page)
    expect(page.locator(".rl-answer-state")).to_contain_text("methods give")
    assert page.locator(".rl-answers .rl-barrow").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    text.fill("")
    text.press("Control+Enter")
    expect(page.locator(".rl-asking .rl-error")).to_have_text("Type something first.")
