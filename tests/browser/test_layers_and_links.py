"""Ranks by layer, comparisons to start from, and the form's link, in a real browser over the shipped example."""

from __future__ import annotations

import csv
import io
import json
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import FullApp, Visitor
from tests.browser.test_compare import chart, wait_for_points

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def recorded(app: FullApp, label: str) -> dict:
    with urllib.request.urlopen(f"{app.address}ranklab/layers?id=example&label={quote(label)}") as answer:
        return json.loads(answer.read())


def opened(page: Page) -> None:
    """The layers are seen, and drawn."""
    page.locator("[data-layers]").scroll_into_view_if_needed()
    expect(page.locator(".rl-heat-table")).to_have_count(page.locator(".rl-card").count())


def to_step(page: Page, place: int) -> None:
    page.locator(".rl-step").evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        place,
    )


def test_ranks_by_layer_are_those_of_the_step_that_is_chosen(app: FullApp, visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    wait_for_points(page, "score", 0)
    page.locator(".rl-measure label", has_text="numerical").click()
    opened(page)
    label = str(page.locator(".rl-card").nth(1).get_attribute("data-label"))
    found = recorded(app, label)
    last = [run["numerical"][-1] for run in found["runs"].values()]
    means = [sum(run[place] for run in last) / len(last) for place in range(len(found["sites"]))]
    cells = page.locator(".rl-heat-table").nth(1).locator("td")
    expect(cells).to_have_count(len(means))
    assert sorted(float(text) for text in cells.all_inner_texts()) == sorted(means)
    expect(page.locator(".rl-at")).to_contain_text("the newest")
    expect(page.locator(".rl-most")).to_contain_text("8.0 (numerical rank)")

    wait_for_points(page, "spectrum", 2, trace=3)
    assert len(str(chart(page, "spectrum", "plot.data[1].x")).split(",")) == 4, "LoRA has r singular values"
    to_step(page, 0)
    expect(cells.first).to_have_text("0")
    note = page.locator('[data-chart="spectrum"] .rl-note')
    expect(note).to_contain_text("None were recorded by step 0; the first are of step 240.")
    page.locator(".rl-play").click()
    expect(page.locator(".rl-at")).to_contain_text("the newest")
    expect(page.locator(".rl-play")).to_have_attribute("aria-pressed", "false")
    cells.first.click()
    expect(page.locator(".rl-site")).to_have_value(found["sites"][0]["site"])
    page.wait_for_function(
        "document.querySelector('[data-chart=spectrum] .rl-plot').layout.yaxis.title.text.includes('layer.0')"
    )
    with page.expect_download() as saved:
        page.locator(".rl-heat-csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8"))))
    assert {"method", "run", "step", "site", "layer", "role", "numerical", "effective", "stable"} == set(rows[0])

    page.locator(".rl-card-name").first.click()
    expect(page.locator(".rl-heat-table")).to_have_count(1)
    page.locator(".rl-card-name").nth(1).click()
    expect(page.locator("[data-layers] .rl-note")).to_have_text("Every method is hidden.")


def test_the_ranks_are_a_picture_and_hidden_methods_say_so(app: FullApp, visitor: Visitor) -> None:
    page = visitor.open(f"#c={app.curves[0]}")
    figure = page.locator("[data-layers]")
    figure.scroll_into_view_if_needed()
    expect(figure.locator(".rl-heat-table").first).to_be_visible()
    with page.expect_download() as picture:
        figure.get_by_role("button", name="PNG").click()
    assert picture.value.path().read_bytes()[:4] == b"\x89PNG"
    for card in page.locator(".rl-card-name").all():
        card.click()
    for part in (figure, page.locator("[data-chart=score]")):
        part.scroll_into_view_if_needed()
        expect(part.locator(".rl-note")).to_have_text("Every method is hidden.")


def test_a_link_brings_the_form_and_says_what_it_moved(visitor: Visitor, browser: Browser) -> None:
    attack = quote("<img src=x onerror=\"document.title='run'\">")
    query = "?model=tiny-text&task=sentiment&methods.0=lora&methods.0.rank=99999&seeds=5,9&training.steps=33"
    page = visitor.open(f"{query}&training.batch_size={attack}&methods.1={attack}#c=example")
    field = page.locator('[data-field="methods.0.rank"] input')
    expect(field).to_have_value("8192")
    expect(page.locator('[data-field="seeds"] input')).to_have_value("5, 9")
    expect(page.locator('[data-field="task"] select')).to_have_value("sentiment")
    expect(page.locator('[data-field="training.steps"] input')).to_have_value("33")
    notes = page.locator(".rl-form > .rl-problem")
    expect(notes).to_have_count(3)
    expect(notes.first).to_contain_text("is now 8192")
    expect(notes.last).to_contain_text("<img src=x")
    assert page.title() == "RankLab" and page.locator(".rl-form img").count() == 0

    field.fill("6")
    link, command = page.locator("#rl-link"), page.locator(".rl-said .rl-command")
    expect(command).to_contain_text("--method lora:rank=6 --seed-list 5,9")
    page.wait_for_url("**methods.0.rank=6**")
    assert "#c=example" in page.url
    field.fill("many")
    expect(command).to_contain_text("No command yet: lora.rank is 'many'")
    page.reload()
    expect(field).to_have_value("many")
    field.fill("7")
    page.wait_for_url("**methods.0.rank=7**")
    shared = link.input_value()
    assert "#" not in shared and shared.startswith(visitor.address)

    other = browser.new_context()
    again = other.new_page()
    again.goto(shared)
    expect(again.locator('[data-field="methods.0.rank"] input')).to_have_value("7")
    expect(again.locator('[data-field="seeds"] input')).to_have_value("5, 9")
    expect(again.locator(".rl-form > .rl-problem")).to_have_count(0)
    other.close()


def test_a_comparison_to_start_from_fills_the_form(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    start = page.locator("#rl-start-from")
    expect(start.locator("optgroup")).to_have_count(5)
    start.select_option("parameters")
    expect(page.locator(".rl-row")).to_have_count(4)
    expect(page.locator("#rl-lock")).to_have_value("parameters")
    expect(page.locator("#rl-start-about")).to_contain_text("come nearest to LoRA's")
    expect(start).to_be_focused()
    expect(page.locator(".rl-row .rl-locked").nth(1)).to_contain_text("parameters (")
    expect(page.locator(".rl-said .rl-command")).to_contain_text("--lock parameters --lock-to")
    start.select_option("propetl_tasks")
    expect(page.locator('[data-field="task"] select')).to_have_value("acceptability")
    expect(page.locator(".rl-partners input:checked")).to_have_count(2)
