"""The Learn tab: six short lessons that set controls, ask for a prediction, run, and show what came out."""

from __future__ import annotations

import gradio as gr

from ui.frame import part


def learn_tab() -> gr.HTML:
    """The tab's content. Its figures come from the addresses of the Rank playground and of the Compare tab."""
    return part("learn", "learn", "learn.html")
