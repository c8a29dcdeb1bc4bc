"""Log lines with the ids of what they are about: text, or one JSON object a line.

No token stands in a line, whoever wrote it, and no address of a visitor. On a public page neither do the values that a
visitor typed, the names of uploaded files, nor the texts of exceptions, which may hold rows of data; where an exception
came from does.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from peft_core.records import public_mode

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
HIDDEN = "(not shown)"
_about: ContextVar[tuple[str, str]] = ContextVar("about", default=("", ""))
_ALWAYS = (
    re.compile(r"\bhf_[A-Za-z0-9_]{8,}"),
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]+"),
    re.compile(r"(?i)(?<=[?&]token=)[^&\s]+"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?<![\d.])(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"),
    re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){4,7}[0-9a-fA-F]{1,4}(?![\w:])"),
)
"""Tokens, a name and password in an address, addresses of the internet in both versions."""
_ON_A_PUBLIC_PAGE = (
    re.compile(r"(?<= is )['\"].*(?=; )"),
    re.compile(r"(?<=uploads/)\S+"),
    re.compile(r"(?<=uploads\\)\S+"),
)
"""The value in an `InputError`, and the path of an uploaded file."""


@contextmanager
def about(comparison: str = "", run: str = "") -> Iterator[None]:
    """Within it this thread's lines bear these ids."""
    token = _about.set((comparison, run))
    try:
        yield
    finally:
        _about.reset(token)


def clean(text: str, public: bool) -> str:
    """A text without what nobody else may read."""
    for pattern in (*_ALWAYS, *(_ON_A_PUBLIC_PAGE if public else ())):
        text = pattern.sub(HIDDEN, text)
    return text


class Formatter(logging.Formatter):
    """Makes a line of a record. public: as on a page that strangers use."""

    def __init__(self, kind: str, *, public: bool) -> None:
        super().__init__()
        self._json, self._public = kind == "json", public

    def format(self, record: logging.LogRecord) -> str:
        comparison, run = _about.get()
        run = getattr(record, "run", run)
        comparison = getattr(record, "comparison", comparison) or run.partition("-")[0]
        message = clean(record.getMessage(), self._public)
        failure = clean(self._failure(record), self._public)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        if self._json:
            line = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": message}
            more = {"comparison": comparison, "run": run, "exception": failure}
            return json.dumps(line | {name: value for name, value in more.items() if value}, ensure_ascii=False)
        message = re.sub(r"[\r\n]+", "\n    ", message)  # what somebody sent cannot look like a line of its own
        ids = f" [{run or comparison}]" if run or comparison else ""
        return f"{when} {record.levelname} {record.name}{ids}: {message}" + (f"\n{failure}" if failure else "")

    def _failure(self, record: logging.LogRecord) -> str:
        """The traceback; on a public page every exception of it by its type alone."""
        if not record.exc_info or record.exc_info[1] is None:
            return ""
        error = record.exc_info[1]
        if not self._public:
            return "".join(traceback.format_exception(error)).rstrip()
        frames = "".join(traceback.format_tb(error.__traceback__))
        return f"{frames}{type(error).__name__}"


def configure(level: str = "info", kind: str = "text", stream: TextIO | None = None) -> None:
    """Have every line of this process written to `stream`, by default standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter(kind, public=public_mode()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def configure_as_told() -> None:
    """`configure` as the environment says: for processes of a server, whose settings were checked at its start."""
    level, kind = os.environ.get("RANKLAB_LOG_LEVEL", "info"), os.environ.get("RANKLAB_LOG_FORMAT", "text")
    configure(level if level in LEVELS else "info", kind if kind in FORMATS else "text")
