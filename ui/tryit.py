"""The Try it tab: finished methods of a comparison answer side by side, and the rows on which they disagree."""

from __future__ import annotations

import gradio as gr

from ui.frame import part


def tryit_tab() -> gr.HTML:
    """The tab's content. Its script asks the addresses of `ui.tryit_routes`."""
    return part("try", "tryit", "tryit.html")
