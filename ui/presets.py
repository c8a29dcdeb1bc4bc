"""Comparisons that the form can be filled with: four to begin with, and the papers' ablations on the small models.

They are data, `assets/comparisons.json`: methods written as on the command line, other fields of the form under `more`,
and in `about` what to look at.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from peft_core.records import MethodSpec
from ui.form import Form, MethodRow, texts

MODEL = "tiny-text"


@cache
def presets() -> tuple[dict[str, Any], ...]:
    """Name, title, group, about and form of each, in the order in which they are offered."""
    file = resources.files("assets") / "comparisons.json"
    return tuple(_document(entry) for entry in json.loads(file.read_text(encoding="utf-8")))


def _document(entry: dict[str, Any]) -> dict[str, Any]:
    methods = [MethodSpec.parse(text) for text in entry["methods"]]
    rows = [MethodRow(id=method.id, options=texts(method.options)) for method in methods]
    form = Form(model=MODEL, task=entry["task"], methods=rows, seeds=entry["seeds"], **entry.get("more", {}))
    return {name: entry[name] for name in ("name", "title", "group", "about")} | {"form": form.model_dump()}
