"""Output of the commands: one JSON document or a table on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

messages = Console(stderr=True)


def print_json(document: Any) -> None:
    """One strict JSON document, one line."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A plain table of these keys."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, markup=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)
