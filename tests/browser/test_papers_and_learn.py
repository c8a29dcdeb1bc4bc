"""The Papers and the Learn tab in a real browser, each by its main path."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import FullApp, Visitor

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def told(page: Page, text: str) -> None:
    expect(page.locator(".pp-count")).to_contain_text(text)


def stays_inside(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_every_figure_carries_its_mark_and_choices_narrow_both_kinds(visitor: Visitor) -> None:
    page = visitor.open("#tab=papers")
    told(page, "90 quoted figures, 104 measured figures")
    quoted, measured = page.locator(".pp-quoted-body tbody tr"), page.locator(".pp-measured-body tbody tr")
    assert quoted.count() == 10 and quoted.locator("td:first-child .pp-quoted").count() == 10
    assert measured.count() == 104 and measured.locator("td:first-child .pp-measured").count() == 104
    page.locator('.pp-quoted-body [data-sort="glue/mrpc accuracy"]').click()
    expect(quoted.first).to_contain_text("CAPABOOST-PAdapter")
    expect(page.locator('.pp-quoted-body [data-sort="glue/mrpc accuracy"]')).to_be_focused()
    page.locator(".pp-clear").click()
    told(page, "1,003 quoted figures")
    assert quoted.count() == 100
    page.locator(".pp-more").click()
    assert quoted.count() == 200
    page.locator("[name=method]").select_option("increlora")
    page.locator("[name=task]").select_option("glue/mnli")
    expect(page.locator(".pp-measured-body .pp-empty")).to_contain_text(
        "not measured anything of increlora on glue/mnli"
    )
    page.locator("[name=task]").select_option("acceptability")
    expect(page.locator(".pp-quoted-body .pp-empty")).to_contain_text("None of the four papers prints a figure")
    assert measured.locator(".pp-measured").count() == measured.count() > 1
    seen = page.locator(".pp-count").text_content()
    page.reload()
    told(page, seen or "")
    page.set_viewport_size({"width": 390, "height": 844})
    stays_inside(page)


def test_a_quoted_row_fills_the_compare_form_with_its_preset(visitor: Visitor) -> None:
    page = visitor.open("#tab=papers&paper=capaboost&table=17&ptask=glue/mrpc")
    told(page, "4 quoted figures")
    page.get_by_text("row by row, with presets").click()
    expect(page.locator(".pp-quoted-body")).to_contain_text("Not on this machine: model roberta-base")
    page.locator("tr", has_text="masks=same").locator(".pp-preset").click()
    form = page.locator(".rl-form")
    expect(form.locator("#rl-preset")).to_have_value("capaboost/roberta-base/capaboost_pfeiffer:d=2,bottleneck=64")
    expect(form.locator(".rl-row")).to_have_count(1)
    expect(form.locator('[data-field="methods.0.masks"] :is(input, select)')).to_have_value("same")
    expect(form.locator('[data-field="methods.0.bottleneck"] input')).to_have_value("64")
    expect(form.locator('[data-field="training.learning_rate"] input')).to_have_value("0.0003")
    expect(form).to_contain_text("The paper trained roberta-base.")
    assert json.loads(page.evaluate("sessionStorage['ranklab-form']"))["task"] == "glue/mrpc"
    assert "preset" not in page.url


def predict(page: Page, *places: int) -> Locator:
    """Choose an option of every question by the keyboard alone, run, and wait for what came out."""
    for number, place in enumerate(places):
        first = page.locator(".ln-question").nth(number).locator("input").first
        first.focus()
        page.keyboard.press("Space")
        for _ in range(place):
            page.keyboard.press("ArrowRight")
    page.locator(".ln-form .rl-big").focus()
    page.keyboard.press("Enter")
    result = page.locator(".ln-result")
    expect(result).to_be_visible(timeout=60_000)
    expect(result.locator("h4")).to_be_focused()
    return result


def test_a_lesson_asks_first_computes_then_and_remembers(visitor: Visitor) -> None:
    page = visitor.open("#tab=learn")
    expect(page.locator(".ln-title")).to_have_text("Low rank")
    page.locator(".ln-form .rl-big").click()
    expect(page.locator(".ln-form .rl-error")).to_have_text("Predict first: 2 questions are open.")
    assert page.locator(".ln-result").is_hidden()
    result = predict(page, 1, 3)
    expect(result.locator("h4")).to_have_text("What came out: 1 of 2 as predicted")
    expect(result.locator(".ln-right")).to_contain_text("You said 4. It came out: rank 4.")
    expect(result.locator(".ln-other")).to_contain_text("You said about 50 %. It came out: 12.5 %.")
    page.reload()
    expect(page.locator('[data-lesson="low-rank"]')).to_contain_text("done: 1 of 2")
    expect(page.locator(".ln-kept")).to_contain_text("1 of 6 done")
    page.locator(".ln-forget").click()
    expect(page.locator('[data-lesson="low-rank"]')).to_contain_text("not done")


def test_a_result_is_what_the_server_found(visitor: Visitor) -> None:
    """Nothing is written down beforehand: another answer of the server is another result."""

    def altered(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["rank"]["numerical"] = 31
        route.fulfill(response=answer, json=found)

    page = visitor.open("#tab=learn&lesson=masks")
    expect(page.locator(".ln-title")).to_have_text("Masks")
    page.route("**/ranklab/playground/sketch", altered)
    result = predict(page, 3, 1)
    expect(result.locator(".ln-right")).to_contain_text("You said 32. It came out: rank 31.")
    page.unroute("**/ranklab/playground/sketch")
    page.locator(".ln-open").click()
    expect(page.locator("#pg-rank")).to_have_value("8")
    expect(page.locator("#pg-out_features")).to_have_value("64")


def test_fits_come_with_their_ceilings_and_open_in_the_playground(visitor: Visitor) -> None:
    page = visitor.open("#tab=learn&lesson=limits")
    expect(page.locator(".ln-title")).to_have_text("Why rank limits")
    page.set_viewport_size({"width": 390, "height": 844})
    result = predict(page, 1, 3)
    expect(result.locator(".ln-bars li")).to_have_count(2)
    expect(result.locator(".ln-right").first).to_contain_text("It came out: 0.500.")
    stays_inside(page)
    page.locator(".ln-open").click()
    expect(page.locator("#pg-target")).to_have_value("flat")
    expect(page.locator("#pg-pair-1-rank")).to_have_value("16")
    expect(page.locator(".pg-pair")).to_have_count(2)


def test_the_training_lesson_reads_a_finished_comparison(visitor: Visitor) -> None:
    """The training itself is the Compare tab's and tested there; here the shipped comparison stands for it."""
    page = visitor.open("#tab=learn&lesson=charts")
    expect(page.locator(".ln-title")).to_have_text("Reading the charts")
    page.route("**/ranklab/start", lambda route: route.fulfill(json={"id": "example"}))
    result = predict(page, 1, 2)
    expect(result.locator(".ln-right").first).to_contain_text("LoRA 4.0, CapaBoost 8.0")
    expect(result).to_contain_text("The finished comparison that is shipped, measured on")
    page.unroute("**/ranklab/start")
    refusal = {"errors": [{"field": "", "message": "The queue is full."}]}
    page.route("**/ranklab/start", lambda route: route.fulfill(json=refusal))
    page.locator(".ln-form .rl-big").click()
    expect(page.locator(".ln-form .rl-error")).to_have_text("The queue is full.")
    page.get_by_text("Use the finished comparison that is shipped instead").click()
    expect(page.locator(".ln-result h4")).to_contain_text("of 2 as predicted")
    page.locator(".ln-open").click()
    expect(page.locator('.rl-form [data-field="training.steps"] input')).to_have_value("40")
    expect(page.locator(".rl-row")).to_have_count(2)
