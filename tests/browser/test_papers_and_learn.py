"""The Papers and the Learn tab in a real browser, each by its main path."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor

pytestmark = pytest.mark.browser


def told(page: Page, text: str) -> None:
    expect(page.locator(".pp-count")).to_contain_text(text, timeout=20_000)


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
    expect(page.locator(".pp-quoted-body")).to_contain_text("Not on this machine: model roberta-base", timeout=20_000)
    page.locator("tr", has_text="masks=same").locator(".pp-preset").click()
    form = page.locator(".rl-form")
    expect(form.locator("#rl-preset")).to_have_value(
        "capaboost/roberta-base/capaboost_pfeiffer:d=2,bottleneck=64", timeout=30_000
    )
    expect(form.locator(".rl-row")).to_have_count(1)
    expect(form.locator('[data-field="methods.0.masks"] :is(input, select)')).to_have_value("same")
    expect(form.locator('[data-field="methods.0.bottleneck"] input')).to_have_value("64")
    expect(form.locator('[data-field="training.learning_rate"] input')).to_have_value("0.0003")
    expect(form).to_contain_text("The paper trained roberta-base.")
    assert json.loads(page.evaluate("sessionStorage['ranklab-form']"))["task"] == "glue/mrpc"
    assert "preset" not in page.url
