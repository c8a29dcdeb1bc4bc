"""Folders of this machine taken out of texts that strangers read."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LEFT = "(a folder of the server)"


@cache
def _folders(home: str) -> re.Pattern[str]:
    roots = {
        home,
        str(Path(home).resolve()) if home else "",
        str(Path(__file__).resolve().parents[1]),
        sys.prefix,
        sys.base_prefix,
        tempfile.gettempdir(),
        str(Path.home()),
        os.environ.get("HF_HOME", ""),
    }
    known = sorted((re.escape(root) for root in roots if len(root) > 1), key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(known)})(?![\w.-])(?:/[^\s'\";,|)\\]*)?")


def scrubbed(text: T) -> T:
    """A text without the folders of this machine; anything else as it is."""
    if not isinstance(text, str):
        return text
    return _folders(os.environ.get("RANKLAB_HOME", "")).sub(LEFT, text)  # type: ignore[return-value]


def all_scrubbed(value: Any) -> Any:
    """The same for all texts in a JSON value."""
    if isinstance(value, dict):
        return {all_scrubbed(key): all_scrubbed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [all_scrubbed(entry) for entry in value]
    return scrubbed(value)
