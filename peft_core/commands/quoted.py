"""``quoted``: what the papers print, marked as quoted."""

from __future__ import annotations

import argparse

from peft_core.commands._output import print_json, print_table
from peft_core.report.quoted import COLUMNS, chosen, quoted_rows


def quoted(options: argparse.Namespace) -> int:
    """Lists quoted figures."""
    found = chosen(options.paper, options.table, options.method)
    if options.json:
        print_json([{"source": figure.mark, **figure.model_dump()} for figure in found])
    else:
        print_table(COLUMNS, quoted_rows(found))
    return 0
