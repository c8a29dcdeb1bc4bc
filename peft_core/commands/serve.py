"""``serve``: the page. The one place where the engine reaches up to `ui`, when it is asked to."""

from __future__ import annotations

import argparse
import importlib


def serve(options: argparse.Namespace) -> int:
    """Serves the page until it is stopped."""
    importlib.import_module("ui").launch(host=options.host, port=options.port)
    return 0
