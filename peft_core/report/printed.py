"""The papers' printed parameter figures beside ours: as printed, and whether some way of counting gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Literal

Agreement = Literal["match", "truncated", "no"]


def agreement(printed: str, computed: float) -> Agreement:
    """Whether a printed decimal is the computed number rounded (half up), cut off at its last place, or neither."""
    figure, exact = Decimal(printed), Decimal(repr(computed))
    if exact.quantize(figure, ROUND_HALF_UP) == figure:
        return "match"
    return "truncated" if exact.quantize(figure, ROUND_DOWN) == figure else "no"


def quoted(printed: str, unit: str, computed: float) -> str:
    """A printed figure as it is shown: itself, and a mark where our count does not give it by rounding."""
    shown = f"{printed} {unit}".rstrip()
    mark = {
        "match": "",
        "truncated": f" (cut off, not rounded: {computed:.6g})",
        "no": " (as printed; no counting gives it)",
    }
    return shown + mark[agreement(printed, computed)]


def page(lines: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """A Markdown table of all figures.

    Args:
        lines: rows of ``assets/reference/parameter_figures.csv``, each with what we compute for it.
    """
    head = ("where", "model", "method", "counting", "printed", "our count")
    table = [head, ("---",) * len(head)]
    for row, computed in lines:
        ours = "" if agreement(row["printed"], computed) == "no" else f"{computed:.6g}"
        method = f"`{row['method']}`" if row["method"] else ""
        figure = quoted(row["printed"], row["unit"], computed)
        table.append((row["figure"], row["model"], method, row["convention"], figure, ours))
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    return (
        "# The papers' parameter figures\n\nMade by `python scripts/quote_figures.py` from "
        "[parameter_figures.csv](parameter_figures.csv) and our counts. A figure that no way of counting"
        f" gives is quoted as printed and has no count of ours beside it.\n\n{body}\n"
    )
