"""Draws the table of CapaBoost's theorem: how often masked copies of one pair have rank d r, and where not, why.

    python scripts/make_theorem_table.py --out assets/theorem.json

Beside the JSON the same table is written as Markdown. Inside a layer (first part) and at the edges (second part).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.theorem import TheoremSpec, theorem
from peft_core.training.checkpoint import write_atomically
from peft_core.training.environment import environment

HEADS = ("shape", "r", "d", "s", "masks", "draws", "d r", "bound", "share of rank d r", "mean rank", "empty")


def inside() -> Iterator[dict[str, Any]]:
    """Layers with room for d r."""
    for shape in ((768, 768), (3072, 768)):
        for rank in (8, 16):
            for d in (1, 2, 4):
                yield {"shape": shape, "rank": rank, "d": d, "sparsity": 0.5}
    for sparsity in (0.1, 0.3, 0.7, 0.9):
        yield {"rank": 8, "d": 4, "sparsity": sparsity}
    for masks in ("2:4", "1:4"):
        for d in (2, 4):
            yield {"rank": 8, "d": d, "masks": masks}


def edges() -> Iterator[dict[str, Any]]:
    """Where something gives way."""
    for masks in ("random", "2:4"):
        for d in (7, 8, 9, 16):
            yield {"shape": (64, 64), "rank": 8, "d": d, "masks": masks}
    yield {"shape": (64, 48), "rank": 8, "d": 6}
    yield {"shape": (64, 48), "rank": 8, "d": 8}
    for sparsity in (0.95, 0.99, 0.995, 0.999, 0.9999):
        yield {"rank": 8, "d": 4, "sparsity": sparsity}
    for sparsity in (0.8, 0.9, 0.95):
        yield {"shape": (32, 32), "rank": 4, "d": 4, "sparsity": sparsity}
    yield {"rank": 8, "d": 4, "sparsity": 0.0}
    yield {"rank": 8, "d": 4, "masks": "4:4"}
    for d in (2, 4):
        yield {"rank": 8, "d": d, "masks": "same", "sparsity": 0.5}
    for masks in ("1:8", "1:4", "2:4"):
        yield {"shape": (16, 16), "rank": 8, "d": 2, "masks": masks}
    yield {"shape": (256, 32), "rank": 16, "d": 2, "masks": "1:16"}


def page(document: dict[str, Any]) -> str:
    """The Markdown table."""
    lines = ["# How often CapaBoost's theorem holds", "", "Written by `scripts/make_theorem_table.py` from"]
    lines += ["[theorem.json](theorem.json). " + document["what"] + ".", ""]
    for title, rows in (("Layers with room for d r", document["inside"]), ("Edges", document["edges"])):
        lines += [f"## {title}", "", f"| {' | '.join((*HEADS, 'why'))} |", f"|{'---|' * (len(HEADS) + 1)}"]
        for row in rows:
            shape, out = row["shape"], [row[name] for name in ("rank", "d", "sparsity", "masks", "draws", "target")]
            out += [row[name] for name in ("bound", "share_equal", "mean_rank", "mean_empty")]
            shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in out]
            why = "" if row["share_equal"] == 1 else row["explanation"]
            lines.append(f"| {' | '.join((f'{shape[0]} x {shape[1]}', *shown, why))} |")
        lines.append("")
    return "\n".join([*lines, "```bash", document["command"], "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the table of the theorem.")
    parser.add_argument("--out", type=Path, default=Path("assets/theorem.json"))
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        part: [theorem(TheoremSpec(**{"draws": options.draws} | case)) for case in cases]
        for part, cases in (("inside", inside()), ("edges", edges()))
    }
    document = {
        "command": f"python scripts/make_theorem_table.py --draws {options.draws}",
        "what": "Rank of the sum of d masked copies of one Gaussian pair, in float64; share: of draws of rank d r;"
        " empty: directions, in the mean, whose row of A or column of B a mask leaves without any value",
        "environment": environment(torch.device("cpu")),
        **found,
    }
    write_atomically(options.out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    write_atomically(options.out.with_suffix(".md"), page(document).encode())


if __name__ == "__main__":
    main()
