"""The Runs tab in a real browser: find, lay over each other, note, export, delete and bring back, resume."""

from __future__ import annotations

import time
import zipfile

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import FullApp, Visitor, finished, post

pytestmark = pytest.mark.browser

SLACK = 5  # the bars are for a quiet machine; tests allow five times as much
MADE_UP = "10,004"


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def started(app: FullApp, steps: int) -> str:
    """A comparison of one run that really trains."""
    lora = {"id": "lora", "options": {"rank": "2"}}
    sizes = {"train_rows": "64", "eval_rows": "40", "seeds": "0"}
    form = {
        "model": "tiny-text",
        "task": "acceptability",
        "methods": [lora],
        "training": {"steps": str(steps)},
        **sizes,
    }
    return str(post(app, "start", **form)["id"])


@pytest.fixture(scope="module")
def trained(app: FullApp) -> str:
    made = started(app, 4)
    finished(app, made)
    return made


def rows(page: Page) -> list[str]:
    return page.eval_on_selector_all("[data-run]", "all => all.map((one) => one.dataset.run)")


def count(page: Page, text: str) -> None:
    expect(page.locator(".rl-count")).to_contain_text(f"of {text} runs")


def opened(page: Page, run: str) -> None:
    page.locator("[name=search]").fill(run)
    page.locator(f'[data-run="{run}"]').click()
    expect(page.locator(".rl-one h3")).to_be_visible()


def curves(page: Page) -> int:
    script = "plot => (plot.data ?? []).filter((trace) => trace.name && trace.x.length).length"
    return int(page.eval_on_selector('[data-chart="overlay"] .rl-plot', script))


def test_ten_thousand_runs_open_and_are_filtered_in_time(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    page.wait_for_function("document.querySelectorAll('.rl-plot .scatterlayer').length >= 3")
    begin = time.monotonic()
    page.get_by_role("tab", name="Runs").click()
    expect(page.locator("[data-run]")).to_have_count(25)
    assert time.monotonic() - begin < 1 * SLACK
    count(page, MADE_UP)
    begin = time.monotonic()
    page.locator("[name=state]").select_option("failed")
    count(page, "2,000")
    assert time.monotonic() - begin < 0.3 * SLACK


def test_words_and_pages_are_in_the_address(visitor: Visitor) -> None:
    page = visitor.open("#tab=runs")
    count(page, MADE_UP)
    page.locator("[name=search]").fill("capaboost sentiment")
    count(page, "626")
    page.locator('[data-sort="score"]').click()
    page.locator(".rl-next").click()
    expect(page.locator(".rl-count")).to_contain_text("26–50 of 626")
    seen = rows(page)
    page.reload()
    expect(page.locator(".rl-count")).to_contain_text("26–50 of 626")
    assert rows(page) == seen
    expect(page.locator("[name=search]")).to_have_value("capaboost sentiment")
    page.locator(".rl-clear").click()
    count(page, MADE_UP)
    page.locator("[name=search]").fill("nothing is called so")
    expect(page.locator(".rl-runs tbody")).to_have_text("No run fits these filters.")


def test_curves_of_any_comparisons_lie_over_each_other(app: FullApp, visitor: Visitor) -> None:
    page = visitor.open("#tab=runs")
    first, second = app.curves
    expect(page.locator('[data-chart="overlay"] .rl-note')).to_contain_text("Tick runs")
    for run in (f"{first}-0", f"{first}-1"):
        page.locator(f'[data-pick="{run}"]').check()
    page.wait_for_function("document.querySelector('[data-chart=overlay] .rl-plot').data?.length >= 4")
    assert curves(page) == 2
    page.locator(f'[data-pick="{second}-0"]').check()
    expect(page.locator('[data-chart="overlay"] .rl-note')).to_contain_text("matthews correlation, r2")
    assert curves(page) == 0
    page.locator(".rl-quantity label", has_text="loss").click()
    expect(page.locator(".rl-beware")).to_contain_text("different tasks")
    assert curves(page) == 3
    page.locator(".rl-quantity label", has_text="eff. rank").click()
    assert curves(page) == 3
    page.reload()
    expect(page.locator(".rl-key li")).to_have_count(3)
    page.locator(".rl-key button").last.click()
    expect(page.locator(".rl-key li")).to_have_count(2)
    expect(page.locator(f'[data-pick="{second}-0"]')).not_to_be_checked()
    page.wait_for_function("document.querySelector('[data-chart=overlay] .rl-plot').data?.length >= 4")


def test_what_is_typed_before_the_script_is_there_counts(visitor: Visitor) -> None:
    page = visitor.open("#c=example")
    page.wait_for_function("document.querySelector('.rl-state')?.dataset.state")
    held: list[Route] = []
    page.route("**/static/runs.js", lambda route: held.append(route))
    page.get_by_role("tab", name="Runs").click()
    page.locator("[name=search]").fill("bitfit")
    held[0].continue_()
    count(page, "2,500")


def test_a_note_is_kept_and_found(app: FullApp, visitor: Visitor) -> None:
    page = visitor.open("#tab=runs")
    run = f"{app.curves[0]}-1"
    opened(page, run)
    note = page.locator(f'[data-note="{run}"]')
    note.fill("<b>looks odd</b>")
    expect(page.locator(".rl-one label", has=note).locator(".rl-sub")).to_have_text("kept")
    page.locator("[name=search]").fill("odd</b>")
    count(page, "1")
    expect(page.locator(".rl-runs tbody")).to_contain_text("<b>looks odd</b>")


def test_a_deleted_comparison_can_be_brought_back_after_a_reload(app: FullApp, visitor: Visitor) -> None:
    page = visitor.open("#tab=runs")
    made = app.curves[1]
    opened(page, f"{made}-0")
    page.get_by_role("button", name="Delete its comparison (2 runs)").click()
    expect(page.locator(".rl-runs tbody")).to_have_text("No run fits these filters.")
    expect(page.locator(".rl-undo li")).to_contain_text("It is removed for good in")
    page.reload()
    page.locator(".rl-undo button").click()
    expect(page.locator(f'[data-run="{made}-0"]')).to_be_visible()
    expect(page.locator(".rl-undo li")).to_have_count(0)


def test_a_live_comparison_is_not_deleted_and_a_stopped_one_goes_on(app: FullApp, visitor: Visitor) -> None:
    made = started(app, 100_000)
    page = visitor.open("#tab=runs")
    opened(page, f"{made}-0")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".rl-said")).to_contain_text("still at work; stop it before deleting it")
    post(app, "stop", id=made)
    state = page.locator("tr", has=page.locator(f'[data-run="{made}-0"]')).locator(".rl-state")
    expect(state).to_have_text("cancelled")
    page.locator(f'[data-run="{made}-0"]').click()
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_attribute("data-state", "running")
    post(app, "stop", id=made)
    expect(state).to_have_text("cancelled")


def test_an_adapter_is_exported_while_the_page_goes_on(visitor: Visitor, trained: str) -> None:
    page = visitor.open("#tab=runs")
    opened(page, f"{trained}-0")
    with page.expect_download(timeout=90_000) as download:
        page.get_by_role("button", name="Export").click()
        expect(page.locator(".rl-exported")).to_contain_text("being made")
        page.locator("[name=search]").fill("bitfit")
        count(page, "2,500")
    assert download.value.suggested_filename == f"ranklab-{trained}-0-native.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert f"{trained}-0-native/README.md" in archive.namelist()
    with page.expect_download() as report:
        page.get_by_role("link", name="Report").click()
    assert report.value.suggested_filename.endswith(".html")


def test_a_token_does_not_stay_in_the_page(visitor: Visitor, trained: str) -> None:
    page = visitor.open("#tab=runs")
    opened(page, f"{trained}-0")
    page.get_by_text("Push to the Hub").click()
    page.get_by_placeholder("owner/name").fill("mine")
    token = page.get_by_label("Token")
    token.fill("hf_" + "notoken")
    token.press("Enter")
    expect(page.locator(".rl-pushed")).to_contain_text("it must be written owner/name")
    expect(token).to_have_value("")
    assert "notoken" not in page.content() + page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_figures_are_defined_and_learned_ranks_fill_the_form(visitor: Visitor, trained: str) -> None:
    def learned(route: Route) -> None:
        found = route.fetch().json()
        found["result"]["rank"]["numerical_max"] += 1
        route.fulfill(json=found)

    page = visitor.open(f"#tab=runs&run={trained}-0")
    expect(page.locator(".rl-one h3")).to_be_visible()
    expect(page.get_by_role("button", name="Train LoRA at its ranks")).to_have_count(0)
    page.locator(".rl-one").get_by_role("button", name="learning rate").click()
    expect(page.get_by_role("dialog")).to_contain_text("Source: the run's frozen config")
    page.keyboard.press("Escape")
    page.route("**/ranklab/runs/run?*", learned)
    page.reload()
    page.get_by_role("button", name="Train LoRA at its ranks").click()
    expect(page.locator('[data-field="methods.1.rank_pattern"] input')).to_have_value(f"{trained}-0")


@pytest.mark.parametrize("width, scheme", [(390, "dark"), (768, "light")])
def test_a_narrow_window_has_no_sideways_scrolling(app: FullApp, visitor: Visitor, width: int, scheme: str) -> None:
    run = f"{app.curves[0]}-1"
    page = visitor.open(f"?__theme={scheme}#tab=runs&over={run}&run={run}")
    page.set_viewport_size({"width": width, "height": 800})
    expect(page.locator(".rl-one h3")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".rl-jump").click()
    page.wait_for_function("document.querySelector('[data-chart=overlay] .rl-plot').data?.length >= 2")
