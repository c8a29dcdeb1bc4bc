"""The budget lock of the form, the Pareto front and the statistics of the table, in a real browser."""

from __future__ import annotations

import json
import urllib.request

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visitor
from tests.browser.test_compare import open_form, shown_id, wait_for_points, write

pytestmark = pytest.mark.browser


def server(app: App, path: str) -> dict:
    with urllib.request.urlopen(f"{app.address}ranklab/{path}") as answer:
        return json.loads(answer.read())


def front(page: Page) -> list[dict]:
    page.wait_for_function("document.querySelector('[data-pareto] .rl-plot').data?.length > 1")
    return page.eval_on_selector("[data-pareto] .rl-plot", "plot => plot.data")


def test_the_front_shows_the_figures_that_are_chosen(app: App, visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    wait_for_points(page, "score", 0)
    shown = server(app, "view?id=example")
    for x, y in (("trainable", "mean"), ("stored_bytes", "mean"), ("stored_bytes", "adapter_flops_executed")):
        page.select_option(".rl-pareto-y", y)
        page.select_option(".rl-pareto-x", x)
        line, *dots = front(page)
        points = shown["pareto"]["points"]
        assert {dot["name"]: (dot["x"][0], dot["y"][0]) for dot in dots} == {
            label: (figures[x], figures[y]) for label, figures in points.items()
        }
        assert line["x"] == [points[label][x] for label in shown["pareto"]["fronts"][f"{x} {y}"]]
    page.select_option(".rl-pareto-x", "adapter_flops_executed")
    assert page.locator(".rl-pareto-y").input_value() == "stored_bytes", "the two change places"


def test_hidden_curves_change_no_statistic(app: App, visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    wait_for_points(page, "score", 0)
    before = page.locator(".rl-table").inner_text()
    for name in page.locator(".rl-card-name").all():
        name.click()
    assert page.locator(".rl-table").inner_text() == before
    expect(page.locator(".rl-notes")).to_contain_text("standard deviation over n seeds")


def test_a_lock_says_what_it_changes_and_that_is_what_runs(app: App, visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    open_form(page)
    asked = page.locator(".rl-row").count()
    page.locator("#rl-lock").select_option("parameters")
    said = page.locator(".rl-row .rl-locked")
    expect(said.first).to_contain_text("is the reference")
    expect(said.nth(1)).to_contain_text("parameters (")
    page.locator("#rl-lock-to").select_option("1")
    expect(said.nth(1)).to_contain_text("is the reference")
    sentences = said.all_inner_texts()
    short = {"training.steps": "4", "train_rows": "64", "eval_rows": "40", "seeds": "0"}
    for field, text in short.items():
        write(page, field, text)
    page.locator(".rl-form button[type=submit]").click()
    expect(page.locator(".rl-lock li")).to_have_count(asked)
    assert page.locator(".rl-lock li").all_inner_texts() == sentences
    expect(page.locator(".rl-state")).to_have_attribute("data-state", "finished", timeout=60_000)

    shown = server(app, f"view?id={shown_id(page)}")
    lock = shown["spec"]["lock"]
    assert (lock["kind"], lock["changes"]) == ("parameters", sentences)
    assert [method["options"] for method in shown["spec"]["methods"]] != [one["options"] for one in lock["asked"]]
    ran = [method["options"]["rank"] for method in shown["spec"]["methods"]]
    assert [run["config"]["rank"] for run in shown["runs"]] == ran
    expect(page.locator(".rl-shown .rl-command")).to_contain_text("--lock parameters --lock-to")
    expect(page.locator(".rl-notes")).to_contain_text("One seed: no interval over seeds")
    expect(page.locator(".rl-table")).to_contain_text("one seed; bootstrap over rows")
