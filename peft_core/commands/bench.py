"""``bench``: ratios of medians, measured in one process in turns.

Every kind of measurement is a file ``bench_<kind>.py`` of this folder with COLUMNS and ``measure(options) -> dict``,
whose ``rows`` are what the table shows; REPEATS, where it has its own.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

import torch

from peft_core.commands._output import print_json, print_table
from peft_core.records import InputError

REPEATS = 15
"""Times that everything is measured, where a kind does not say otherwise."""


def bench(options: argparse.Namespace) -> int:
    """Measures what ``--what`` names and prints it; with --out it is also kept as JSON."""
    kind = import_module(f"peft_core.commands.bench_{options.what}")
    if options.repeats is None:
        options.repeats = getattr(kind, "REPEATS", REPEATS)
    for name in ("rank", "rows", "tokens", "repeats", "viewers", "duration"):
        if getattr(options, name) < 1:
            raise InputError(name, getattr(options, name), "it must be a whole number, at least 1")
    if options.threads:
        torch.set_num_threads(options.threads)
    document = kind.measure(options)
    if options.out:
        Path(options.out).write_text(json.dumps(document, indent=1), encoding="utf-8")
    if options.json:
        print_json(document)
    else:
        print_table(kind.COLUMNS, document["rows"])
    return 0
