"""What a name on this disk is called elsewhere: cards and files travel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft_core.records import UPLOAD

_ABSOLUTE = re.compile(r"(?<![^\s'\"(])(?:~|\.\.?)?/[^\s'\";,|)]+")


def public_name(text: str) -> str:
    """The text, or of a path on this disk, or of an uploaded file's name, its last part."""
    if text.startswith(UPLOAD):
        return text.rpartition("/")[2]
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    return path.name if path.is_absolute() or text.startswith((".", "~")) else text


def public_value(value: Any) -> Any:
    """The same for all texts in a JSON value."""
    if isinstance(value, str):
        return public_name(value)
    if isinstance(value, Mapping):
        return {public_name(str(key)): public_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(entry) for entry in value]
    return value


def public_sentence(text: str) -> str:
    """A sentence with the last part of every path in it."""
    return _ABSOLUTE.sub(lambda found: Path(found[0]).name, text)
