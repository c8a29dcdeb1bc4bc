"""The comparison that is shipped with the project: its specification is what a new comparison starts from."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from peft_core.records import ComparisonSpec


@cache
def example_spec() -> ComparisonSpec:
    """What the shipped comparison compares: the default of the command line and of the page."""
    text = (resources.files("assets") / "examples" / "default.json").read_text(encoding="utf-8")
    return ComparisonSpec.model_validate(json.loads(text)["comparison"]["spec"])
