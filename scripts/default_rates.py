"""Prints the learning rates that a sweep chose over all tasks beside the methods' defaults.

    python scripts/default_rates.py [assets/sweeps/learning_rates.json]

Ends with status 1 where a default is not the sweep's choice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.methods import list_methods
from peft_core.training.tried import chosen_rates

SWEEP = Path(__file__).parents[1] / "assets" / "sweeps" / "learning_rates.json"


def table(sweep: dict) -> tuple[list[str], bool]:
    """A line a method, and whether every default is the choice."""
    chosen, rows = chosen_rates(sweep), {row["method"]: row for row in sweep["overall"]}
    lines, all_equal = [f"{'method':20} {'choice':>10} {'default':>10} {'same':>5}  at the edge"], True
    for method in list_methods():
        default = method.Config.model_fields["learning_rate"].default
        rate = chosen[method.id][0] if method.id in chosen else None
        edge = rows[method.id]["edge"] if method.id in rows else None
        shown = "-" if rate is None else f"{rate:g}"
        lines.append(
            f"{method.id:20} {shown:>10} {default:>10g} {'yes' if rate == default else 'no':>5}  {edge or '-'}"
        )
        all_equal &= rate == default
    return lines, all_equal


def main() -> int:
    lines, all_equal = table(json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else SWEEP).read_text(encoding="utf-8")))
    print("\n".join(lines))
    return 0 if all_equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
