"""Measurements of the page in Chromium, driven by Playwright: what a visitor waits for, timed inside the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track

from peft_core.commands._output import messages
from peft_core.records import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, CDPSession, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
WINDOW = {"width": 1440, "height": 1000}
LIMIT = 60_000
"""Milliseconds that anything on the page may take."""
CURVES, POINTS, FRESH = 24, 2000, 10
WARMUP = 3
MOVES: dict[str, list[float]] = {"d": [3, 4, 6, 8, 5, 2], "rank": [12, 16, 24, 32, 48, 8], "sparsity": [0.3, 0.6, 0.8]}
WORDS = ("rank=8", "sentiment", "d=2", "entailment seed", "rank=4")

_IN_EVERY_PAGE = """
window.painted = new Promise((resolve) => {
  const there = (name) => document.querySelector(`[data-chart=${name}] .rl-plot`)?.data?.[1]?.x?.length > 0;
  const all = () => ["score", "loss", "rank"].every(there);
  const look = () => (all() ? resolve(performance.now()) : requestAnimationFrame(look));
  look();
});
window.untilPainted = (test) => new Promise((resolve) => {
  const done = () => requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
  const look = () => test() && (watch.disconnect(), done());
  const watch = new MutationObserver(look);
  watch.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  look();
});
window.enter = (input, value) => {
  const begin = performance.now();
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  return begin;
};
"""
"""painted: when three charts have points, in ms from the navigation's start; untilPainted: when what makes a test true
is painted; enter: when a value was given."""

_SLIDER = """async ([name, value]) => {
  const root = document.querySelector(".pg"), before = root.dataset.answered;
  const begin = enter(document.getElementById(`pg-${name}`), value);
  return (await untilPainted(() => root.dataset.answered !== before)) - begin;
}"""

_OPEN_RUNS = """async () => {
  const tab = [...document.querySelectorAll("[role=tab]")].find((one) => one.textContent.trim() === "Runs");
  const begin = performance.now();
  tab.click();
  return (await untilPainted(() => document.querySelectorAll("[data-run]").length >= 25)) - begin;
}"""

_FILTER = """async (word) => {
  const count = document.querySelector(".rl-runs").closest(".rl").querySelector(".rl-count");
  const before = count.textContent, begin = enter(document.querySelector("[name=search]"), word);
  return (await untilPainted(() => count.textContent !== before)) - begin;
}"""

_UPDATE = """async (fresh) => {
  const begin = performance.now();
  madeUp.report(fresh);
  madeUp.draw();
  await madeUp.settled();
  return performance.now() - begin;
}"""


def made_up_chart() -> str:
    """JavaScript's function of {curves, points, fresh} that puts a chart, `window.madeUp`, over the page."""
    text = (Path(__file__).parent / "_made_up_chart.js").read_text(encoding="utf-8")
    return text.rstrip().removesuffix(";")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window, ended afterwards.

    Raises:
        InputError: Playwright or Chromium is not installed; the sentence says how to install it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("what", "page", "its rows in a browser need `pip install playwright` first") from None
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise InputError("what", "page", "its rows in a browser need Chromium, such as by `make chromium`") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """The page in a window of its own, with nothing kept from earlier ones."""
    context = browser.new_context(viewport=WINDOW)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.set_default_timeout(LIMIT)
        page.add_init_script(_IN_EVERY_PAGE)
        page.goto(address)
        yield page
    finally:
        context.close()


def first_paints(browser: Browser, address: str, repeats: int) -> list[float]:
    """Seconds from navigation to the shipped example's three charts with points; each in a new window."""
    found = []
    for _ in _each(repeats, "first paint"):
        with opened(browser, address + "#c=example") as page:
            found.append(page.evaluate("painted") / 1000)
    return found


def chart_updates(browser: Browser, address: str, repeats: int) -> tuple[list[float], list[float]]:
    """Of updates of 24 curves of 2,000 points with 10 new points each, in ms: how long the browser's main thread was at
    work (script, style, layout, painting), and the time from the new points until they are painted."""
    with opened(browser, address + "#c=example") as page:
        page.evaluate("painted")
        page.evaluate(made_up_chart(), {"curves": CURVES, "points": POINTS, "fresh": FRESH})
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        tasks, walls = [], []
        for number in _each(WARMUP + repeats, "24 curves"):
            page.wait_for_timeout(100)
            before = _main_thread(session)
            wall = page.evaluate(_UPDATE, FRESH)
            task = _main_thread(session) - before
            if number >= WARMUP:
                tasks.append(task)
                walls.append(wall)
    return tasks, walls


def _main_thread(session: CDPSession) -> float:
    """Milliseconds that the main thread has been at work since the page was opened."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(1000 * float(entry["value"]) for entry in metrics if entry["name"] == "TaskDuration")


def slider_moves(browser: Browser, address: str, repeats: int) -> list[float]:
    """Milliseconds from a slider's input event at 768 x 768 until the answer is painted; d, r and s in turns."""
    found = []
    with opened(browser, address + "#tab=playground") as page:
        page.wait_for_selector(".pg[data-answered]")
        for number in _each(WARMUP + repeats, "sliders"):
            name = list(MOVES)[number % len(MOVES)]
            value = MOVES[name][number // len(MOVES) % len(MOVES[name])]
            milliseconds = page.evaluate(_SLIDER, [name, str(value)])
            found += [milliseconds] if number >= WARMUP else []
    return found


def runs_opened(browser: Browser, address: str, repeats: int) -> list[float]:
    """Seconds from a click on the Runs tab until its rows are painted; each in a new window."""
    found = []
    for _ in _each(repeats, "Runs"):
        with opened(browser, address + "#c=example") as page:
            page.evaluate("painted")
            found.append(page.evaluate(_OPEN_RUNS) / 1000)
    return found


def runs_filtered(browser: Browser, address: str, repeats: int) -> list[float]:
    """Milliseconds from a search's input event until the rows that fit it are painted."""
    found = []
    with opened(browser, address + "#tab=runs") as page:
        page.wait_for_selector("[data-run]")
        time.sleep(1)
        for number in _each(repeats, "filter"):
            found.append(page.evaluate(_FILTER, WORDS[number % len(WORDS)]))
    return found


def _each(count: int, what: str) -> Any:
    return track(range(count), what, console=messages)
