"""Every tab there is, at three widths, light and dark: nothing lies over another or leaves the window, and axe agrees."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FullApp, Visitor
from tests.browser.test_compare import wait_for_points

pytestmark = pytest.mark.browser

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
GRAVE = {"serious", "critical"}
STILL = """([quiet, limit]) => new Promise((resolve) => {
  let timer = setTimeout(resolve, quiet);
  const watch = new MutationObserver(() => { clearTimeout(timer); timer = setTimeout(resolve, quiet); });
  watch.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  setTimeout(resolve, limit);
})"""
"""Resolves when the page has not changed for a while."""
ASTRAY = """() => {
  const clips = (element) => {
    for (let one = element.parentElement; one; one = one.parentElement)
      if (getComputedStyle(one).overflowX !== "visible") return true;
    return false;
  };
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const name = (element) => `${element.tagName.toLowerCase()}.${[...element.classList].join(".")} "${(element.innerText || element.ariaLabel || "").slice(0, 40)}"`;
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const element of document.querySelectorAll(".rl *")) {
    if (!shown(element) || clips(element)) continue;
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > innerWidth + 1 || box.left < -1)) found.push(`${name(element)} leaves the window`);
  }
  const floating = (element) => { for (let one = element; one; one = one.parentElement) if (["fixed", "sticky"].includes(getComputedStyle(one).position) && one.matches("button, .rl-define")) return true; return false; };
  const controls = [...document.querySelectorAll(".rl :is(button, input, select, textarea, a[href], summary)")]
    .filter((one) => shown(one) && !one.closest(".js-plotly-plot") && !floating(one) && !(one.type === "radio" && getComputedStyle(one).position === "absolute"));
  const boxes = controls.map((one) => one.getBoundingClientRect());
  controls.forEach((one, i) => controls.slice(i + 1).forEach((other, j) => {
    const [a, b] = [boxes[i], boxes[i + 1 + j]];
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left), height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > 2 && height > 2 && !one.contains(other) && !other.contains(one)) found.push(`${name(one)} lies over ${name(other)}`);
  }));
  return found.slice(0, 12);
}"""
"""What leaves the window, and controls that lie over each other."""
GRAVEST = """async () => (await axe.run({ include: [["#rl-tabs"]] }, { resultTypes: ["violations"] })).violations
  .map(({ id, impact, help, nodes }) => ({ id, impact, help, nodes: nodes.slice(0, 4).map((node) => node.html.slice(0, 160)) }))"""


@pytest.fixture(scope="module")
def app(full_app: FullApp) -> FullApp:
    return full_app


def settle(page: Page) -> None:
    page.evaluate(STILL, [300, 5000])


def grave(page: Page) -> list[dict[str, Any]]:
    return [one for one in page.evaluate(GRAVEST) if one["impact"] in GRAVE]


@pytest.mark.parametrize("width, scheme, checked", [(390, "light", True), (768, "dark", False), (1440, "dark", True)])
def test_every_tab_keeps_its_place_and_can_be_used_by_all(
    visitor: Visitor, width: int, scheme: str, checked: bool
) -> None:
    """checked: by axe too, once for each scheme."""
    page = visitor.open(f"?__theme={scheme}#c=example")
    page.set_viewport_size({"width": width, "height": 900})
    wait_for_points(page, "score", 0)
    expect(page.locator(".rl-form button[type=submit]")).to_be_attached(timeout=30_000)
    page.evaluate(AXE)
    for one in page.locator("[role=tab]").all():
        title = one.inner_text()
        one.click()
        expect(one).to_have_attribute("aria-selected", "true")
        settle(page)
        page.evaluate(
            "document.querySelectorAll('.rl details').forEach((one) => { if (one.offsetParent) one.open = true; })"
        )
        settle(page)
        assert page.evaluate(ASTRAY) == [], title
        found = grave(page) if checked else []
        assert found == [], f"{title}: {json.dumps(found, indent=1)}"
