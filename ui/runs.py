"""The Runs tab: everything that was ever run here, and the curves of any of it in one chart."""

from __future__ import annotations

import gradio as gr

from ui.frame import part


def runs_tab() -> gr.HTML:
    """The tab's content. Its script asks the addresses of `ui.runs_routes`."""
    return part("runs", "runs", "runs.html")
