"""Step time against the number of runs, d, rank and sequence length on the CPU, with a straight line through each.

    OMP_NUM_THREADS=1 python scripts/bench_scaling.py --out assets/benchmarks/scaling.json

Beside the JSON the table is written as Markdown and the chart as SVG. All cases are measured in turns in one process;
the figures are medians. About five minutes on one core; --repeats 3 is a look.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from peft_core.training.checkpoint import write_atomically
from peft_core.training.environment import environment
from scripts.benchmarking.chart import panels
from scripts.benchmarking.runs import Step, apart, in_lockstep, made_up_runs, random_roberta
from scripts.benchmarking.timing import interleaved, straight_line

MODEL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
TINY = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
BASE = {"runs": 1, "d": 2, "rank": 16, "tokens": 64, "rows": 8}
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "runs": ("runs, one after another", (1, 2, 4, 8)),
    "lockstep": ("runs in lockstep", (1, 2, 4, 8)),
    "d": ("d, parallel modules", (1, 2, 4, 8)),
    "rank": ("rank", (4, 8, 16, 32, 64)),
    "tokens": ("tokens of a row", (16, 32, 64, 128, 256)),
}


def step_of(backbone: Any, axis: str, value: int) -> Step | None:
    """A step at the base setting with one value changed; None where the engine cannot do it."""
    asked = BASE | {"runs" if axis == "lockstep" else axis: value}
    method = f"capaboost_lora:rank={asked['rank']},d={asked['d']},sparsity=0.5"
    runs = made_up_runs(backbone, [method] * asked["runs"], asked["rows"], asked["tokens"])
    return in_lockstep(runs) if axis == "lockstep" else apart(runs)


def measure(repeats: int, model: dict[str, int]) -> list[dict[str, Any]]:
    """One entry for every axis that the engine has."""
    backbone = random_roberta(vocab_size=1000, **model)
    steps = {(axis, value): step_of(backbone, axis, value) for axis, (_, values) in AXES.items() for value in values}
    known = {f"{axis} {value}": step for (axis, value), step in steps.items() if step is not None}
    times = interleaved(known, repeats)
    return list(_axes(times))


def _axes(times: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    for axis, (title, values) in AXES.items():
        if f"{axis} {values[0]}" not in times:
            continue
        measured = [[1000 * seconds for seconds in times[f"{axis} {value}"]] for value in values]
        medians = [statistics.median(case) for case in measured]
        quartiles = [statistics.quantiles(case, n=4) if len(case) > 1 else case * 3 for case in measured]
        yield {
            "axis": axis,
            "title": title,
            "x": list(values),
            "step_ms_median": medians,
            "step_ms_quartiles": [[case[0], case[2]] for case in quartiles],
            "line": straight_line(values, medians),
        }


def page(document: dict[str, Any]) -> str:
    """The Markdown table of a document."""
    model, base, where = document["model"], document["base"], document["environment"]
    lines = [
        "# How a step's cost grows",
        "",
        "Written by `scripts/bench_scaling.py` from the JSON beside it: medians of "
        f"{document['repeats']} steps in milliseconds, all cases in turns in one process, and the straight line through"
        " them by least squares with what is left over (measured - line).",
        "",
        f"A RoBERTa of width {model['hidden_size']} with {model['num_hidden_layers']} layers and random weights, "
        f"{base['rows']} rows of {base['tokens']} tokens, fp32; `capaboost_lora` with rank {base['rank']}, d = "
        f"{base['d']}, one run, one value changed at a time. A step is the engine's own: batch, forward, backward, "
        "clipping, AdamW, record.",
        "",
        f"Measured on {where['device_name']}; threads: {where['threads']}; torch {where['versions']['torch']}.",
        "",
    ]
    for entry in document["axes"]:
        line = entry["line"]
        lines += [
            f"## {entry['title'].capitalize()}",
            "",
            f"{line['intercept']:.2f} ms + {line['slope']:.4f} ms each, R² = {line['r2']:.4f}",
            "",
            "| value | step, ms | quartiles | line | left over |",
            "|---|---|---|---|---|",
        ]
        for x, ms, (low, high), left in zip(
            entry["x"], entry["step_ms_median"], entry["step_ms_quartiles"], line["residuals"], strict=True
        ):
            lines.append(f"| {x} | {ms:.2f} | {low:.2f} to {high:.2f} | {ms - left:.2f} | {left:+.2f} |")
        lines.append("")
    if "lockstep" not in {entry["axis"] for entry in document["axes"]}:
        lines += ["Lockstep was not measured.", ""]
    return "\n".join([*lines, "![The chart of it](scaling.svg)", "", "```bash", document["command"], "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how a step's cost grows.")
    parser.add_argument("--out", type=Path, default=Path("assets/benchmarks/scaling.json"))
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--tiny", action="store_true", help="a miniature model, to try the command")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = TINY if options.tiny else MODEL
    words = ["python", "scripts/bench_scaling.py", "--repeats", str(options.repeats)]
    document = {
        "what": "median milliseconds of a step against one value at a time, and straight lines through them",
        "command": shlex.join(words + (["--tiny"] if options.tiny else [])),
        "model": model,
        "base": BASE,
        "repeats": options.repeats,
        "axes": measure(options.repeats, model),
        "environment": environment(torch.device("cpu")),
    }
    write_atomically(options.out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    write_atomically(options.out.with_suffix(".md"), page(document).encode())
    write_atomically(options.out.with_suffix(".svg"), panels(document["axes"]).encode())


if __name__ == "__main__":
    main()
