"""``theorem``: how often masked copies of one low-rank pair reach rank d r."""

from __future__ import annotations

import argparse
import re
from typing import Any

from peft_core.commands._output import print_json, print_table
from peft_core.records import InputError, checked, parse_scalar

OPTIONS = ("rank", "d", "sparsity", "draws", "seed")
COLUMNS = ("target", "bound", "share_equal", "mean_rank", "least_rank", "largest_rank", "mean_empty")


def theorem(options: argparse.Namespace) -> int:
    """Draws, measures, and says why where a rank is not d r."""
    from peft_core.theorem import TheoremSpec
    from peft_core.theorem import theorem as measure

    given: dict[str, Any] = {name: parse_scalar(getattr(options, name)) for name in OPTIONS if getattr(options, name)}
    if options.masks is not None:
        given["masks"] = options.masks
    if options.shape is not None:
        given["shape"] = read_shape(options.shape)
    found = measure(checked(TheoremSpec, given))
    if options.json:
        print_json(found)
    else:
        print_table(COLUMNS, [found])
        print(found["explanation"])
    return 0


def read_shape(text: str) -> tuple[int, int]:
    """(out, in) of ``OxI``.

    Raises:
        InputError: it is not written so.
    """
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if match is None:
        raise InputError("shape", text, "it must be written OUTxIN, such as 768x768")
    return int(match[1]), int(match[2])
