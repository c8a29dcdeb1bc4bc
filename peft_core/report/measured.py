"""Keeps quoted figures out of what shows measured ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from peft_core.records import QuotedFigure

P = ParamSpec("P")
R = TypeVar("R")


def measured_only(function: Callable[P, R]) -> Callable[P, R]:
    """A table or a figure that refuses quoted figures among what it is given.

    Raises:
        TypeError: there is one, as it is or as the row that it was stored as.
    """

    @wraps(function)
    def guarded(*given: P.args, **named: P.kwargs) -> R:
        for value in (*given, *named.values()):
            refuse_quoted(value, function.__name__)
        return function(*given, **named)

    return guarded


def refuse_quoted(value: Any, name: str) -> None:
    """Raises `TypeError` where a value is a quoted figure or a list or table that holds one."""
    if isinstance(value, QuotedFigure) or (isinstance(value, Mapping) and value.get("kind") == "quoted"):
        raise TypeError(f"{name} shows what was measured here; a quoted figure belongs in report.quoted")
    if isinstance(value, list | tuple):
        for entry in value:
            refuse_quoted(entry, name)
