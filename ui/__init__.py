"""The page. The only room that imports gradio."""

from ui.launching import build, launch

__all__ = ["build", "launch"]
