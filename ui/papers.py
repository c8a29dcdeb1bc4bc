"""The Papers tab: what the papers print, marked as quoted, beside what this project measured, marked as measured."""

from __future__ import annotations

import gradio as gr

from ui.frame import part


def papers_tab() -> gr.HTML:
    """The tab's content. Its script asks the addresses of `ui.papers_routes` when it is opened."""
    return part("papers", "papers", "papers.html")
