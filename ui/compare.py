"""The Compare tab: a component of this project's own page parts (`static/`), placed in Gradio's page."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STATIC = Path(__file__).parent / "static"
HEAD = """
<link rel="stylesheet" href="ranklab/static/style.css">
<link rel="modulepreload" href="ranklab/static/page.js">
<script>window.ranklabFirst = fetch("ranklab/view" + (location.hash.startsWith("#c=")
  ? "?id=" + encodeURIComponent(location.hash.slice(3)) : ""));</script>
<script async src="ranklab/plotly.min.js"></script>
<script type="module" src="ranklab/static/page.js"></script>
"""
MOUNT = """
if (window.ranklab) window.ranklab.mount(element);
else document.addEventListener("ranklab-ready", () => window.ranklab.mount(element), { once: true });
"""


def compare_tab() -> gr.HTML:
    """The tab's content. Its script asks the addresses of `ui.routes`; nothing goes through Gradio's queue."""
    template = (STATIC / "compare.html").read_text(encoding="utf-8")
    return gr.HTML(
        value="", html_template=template, js_on_load=MOUNT, apply_default_css=False, elem_id="ranklab-compare"
    )
