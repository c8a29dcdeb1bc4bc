"""Figures that papers print, each with the mark that says so. They are shown by themselves, beside nothing measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from peft_core.records import InputError, QuotedFigure

COLUMNS = ("source", "printed", "method", "model", "task", "metric", "score", "std")


@cache
def quoted_figures() -> tuple[QuotedFigure, ...]:
    """All that are kept in assets/quoted/paper_results.json."""
    text = (resources.files("assets") / "quoted" / "paper_results.json").read_text(encoding="utf-8")
    return tuple(QuotedFigure.model_validate(row) for row in json.loads(text)["figures"])


def chosen(paper: str | None = None, table: str | None = None, method: str | None = None) -> list[QuotedFigure]:
    """Those of a paper, a table, a method (its id, or id with options as they are kept).

    Raises:
        InputError: nothing is quoted under such a name.
    """
    found = list(quoted_figures())
    for field, wanted, values in (
        ("paper", paper, lambda figure: (figure.paper,)),
        ("table", table, lambda figure: (figure.table,)),
        ("method", method, lambda figure: (figure.method, (figure.method or "").partition(":")[0])),
    ):
        if wanted is None:
            continue
        known = sorted({value for figure in found for value in values(figure)[-1:] if value})
        found = [figure for figure in found if wanted in values(figure)]
        if not found:
            raise InputError(field, wanted, f"it must be one of {', '.join(known)}")
    return found


def quoted_rows(figures: Iterable[QuotedFigure]) -> list[dict[str, Any]]:
    """Rows of a table; `source` is the mark."""
    return [
        {"source": figure.mark, **{name: getattr(figure, name) for name in COLUMNS[1:]}, **figure.about}
        for figure in figures
    ]
