"""Runs the methods of the shipped example again and keeps the result as the example that a new install shows first.

python scripts/make_example.py --out assets/examples/default.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.records import ComparisonSpec, RunState
from peft_core.runs import Supervisor, example_spec


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the example that a new install shows.")
    parser.add_argument("--out", type=Path, default=Path("assets/examples/default.json"))
    options = parser.parse_args()
    spec = ComparisonSpec(methods=example_spec().methods)
    with tempfile.TemporaryDirectory() as home, Supervisor(Path(home)) as supervisor:
        comparison = supervisor.submit(spec)
        supervisor.wait(comparison, timeout=1800)
        view = supervisor.view(comparison)
    if view.comparison.state != RunState.FINISHED:
        raise SystemExit(f"the comparison is {view.comparison.state.value}: {[run.error for run in view.runs]}")
    shipped = view.model_copy(update={"comparison": view.comparison.model_copy(update={"origin": "shipped"})})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(shipped.model_dump(mode="json"), separators=(",", ":"), allow_nan=False)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
