"""Writes the papers' printed parameter figures beside our own counts.

    python scripts/quote_figures.py

Reads assets/reference/parameter_figures.csv and writes the table parameter_figures.md beside it.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.budget import published
from peft_core.report.printed import page

FIGURES = Path(__file__).parents[1] / "assets" / "reference" / "parameter_figures.csv"


def main() -> None:
    with FIGURES.open(newline="", encoding="utf-8") as file:
        lines = [(row, published(row)) for row in csv.DictReader(file)]
    FIGURES.with_suffix(".md").write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
