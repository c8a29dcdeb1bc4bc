"""The Compare tab: a component of this project's own page parts (`static/`), placed in Gradio's page."""

from __future__ import annotations

import gradio as gr

from ui.frame import part


def compare_tab() -> gr.HTML:
    """The tab's content. Its script asks the addresses of `ui.routes`; nothing goes through Gradio's queue."""
    return part("compare", "page", "compare.html", style=False)
