"""The Rank playground tab: one pair under masks, drawn at once, and how much of a target pairs can capture."""

from __future__ import annotations

import gradio as gr

from ui.frame import part


def playground_tab() -> gr.HTML:
    """The tab's content. Its script asks the addresses of `ui.playground_routes` when it is opened."""
    return part("playground", "playground", "playground.html")
