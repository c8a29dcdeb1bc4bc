"""The page's frame: its tabs in their order, each a component of its own file of `ui/` over files of `static/`.

Gradio renders a tab's children when it is first opened and keeps them then. What is rendered asks `static/frame.js` to
load its script, `static/<id>.js`, which exports `mount(element)`. Nothing of a tab is loaded before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import .*?from "\./([\w-]+\.js)";$', re.MULTILINE)


def modules(entry: str) -> list[str]:
    """A script of `static/` and all that it imports at once, so that a browser can ask for them together."""
    found = [entry]
    for name in found:
        found += [other for other in _IMPORT.findall((STATIC / name).read_text(encoding="utf-8")) if other not in found]
    return found


def head() -> str:
    """What stands in the page's head: the first tab is asked for before Gradio has drawn anything."""
    return f"""
<link rel="stylesheet" href="ranklab/static/style.css">
<link rel="modulepreload" href="ranklab/static/frame.js">
<script>(() => {{
  const query = new URLSearchParams(location.hash.slice(1));
  if ((query.get("tab") ?? "compare") !== "compare") return;
  const id = query.get("c");
  window.ranklabFirst = fetch("ranklab/view" + (id ? "?id=" + encodeURIComponent(id) : ""));
  for (const name of {json.dumps(modules("page.js"))}) {{
    const ahead = document.createElement("link");
    [ahead.rel, ahead.href] = ["modulepreload", "ranklab/static/" + name];
    document.head.append(ahead);
  }}
}})();</script>
<script async src="ranklab/plotly.min.js"></script>
<script type="module" src="ranklab/static/frame.js"></script>
"""


def part(tab: str, script: str, template: str, *, style: bool = True) -> gr.HTML:
    """A tab's content: a template of `static/` whose script is loaded when the tab is first opened.

    Args:
        tab: its id, as in the address.
        script: a module of `static/` without its ending; it exports `mount(element)`.
        template: a file of `static/`.
        style: whether `static/<script>.css` belongs to it.
    """
    call = f"window.ranklab.open({json.dumps(tab)}, {json.dumps(script)}, element, {json.dumps(style)});"
    later = f'document.addEventListener("ranklab-ready", () => {call[:-1]}, {{ once: true }});'
    return gr.HTML(
        value="",
        html_template=(STATIC / template).read_text(encoding="utf-8"),
        js_on_load=f"if (window.ranklab) {call}\nelse {later}",
        apply_default_css=False,
        elem_id=f"ranklab-{tab}",
    )


def frame(tabs: tuple[tuple[str, str, Callable[[], gr.HTML]], ...]) -> None:
    """Places tabs, given as (id, title, what makes the content), in the Blocks that is being built."""
    with gr.Tabs(elem_id="rl-tabs", overflow_behavior="wrap"):
        for name, title, content in tabs:
            with gr.Tab(title, id=name, elem_id=f"rl-tab-{name}"):
                content()
