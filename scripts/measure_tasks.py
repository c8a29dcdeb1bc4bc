"""Measures what simple baselines, the head alone and full fine-tuning reach on every embedded task.

    python scripts/measure_tasks.py --out assets/embedded_tasks.json

The table shows that the tasks have something to show: words alone are not enough, and neither is the frozen backbone.
Simple baselines (`simple_baselines`): logistic regression (ridge for similarity) on counts of the words of either side,
their overlap and difference; for written answers the copied source and the target of the nearest source. Head and full:
the engine itself, 3 seeds, equal settings. A model that writes has no head to draw: there `frozen` is what it writes
untrained, and a seed draws the rows and their order instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.records import ComparisonSpec, Event, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.tasks import TaskInfo, get_task, list_tasks
from peft_core.training import train_comparison
from peft_core.training.environment import environment
from scripts.simple_baselines import simple_baselines

MODELS = {"text": "tiny-text", "image": "tiny-vision", "any": "tiny-text"}
WRITERS = {"translation": "tiny-seq2seq", "data_to_text": "tiny-decoder"}
SEEDS = (0, 1, 2)
STEPS = {"data_to_text": 900, "entailment": 1500, "paraphrase": 600, "span_qa": 800, "translation": 1500}
"""Tasks that take longer to learn than the others."""
RATES = {"data_to_text": 2e-3, "translation": 1.5e-3}
"""Peak learning rates of tasks for which the usual one is too small for so few steps."""
PEAK = {"full": 5e-4, "head": 5e-3}
"""The usual peak learning rates: the same as long as the table grows, whatever the methods' defaults become."""


def model_of(info: TaskInfo) -> str:
    """The embedded model that a task is measured on."""
    return WRITERS.get(info.id, MODELS[info.modality])


def fine_tuned(info: TaskInfo, steps: int) -> dict[str, Any]:
    """Scores of the head alone, or of the untrained model where it writes, and of full fine-tuning, per seed."""
    writes = info.problem == "generation"
    ids = ("full",) if writes else ("head", "full")
    rates = {method: RATES.get(info.id, PEAK[method]) for method in ids}
    spec = ComparisonSpec(
        model=model_of(info),
        task=info.id,
        methods=tuple(MethodSpec(id=method, options={"learning_rate": rates[method]}) for method in ids),
        seeds=SEEDS,
        training=TrainingConfig(steps=steps, eval_every=steps),
    )
    primary = info.metrics[0]
    scores: dict[str, list[float]] = {method: [] for method in ids}
    untrained: list[float] = []
    facts: dict[str, Any] = {}

    def emit(event: Event) -> None:
        if event.event == "state" and event.state == RunState.FAILED:
            raise SystemExit(f"{info.id} on {spec.model}: {event.error}")
        if event.event == "state" and event.result is not None:
            scores[runs[event.run].method.id].append(event.result.score[primary] or 0.0)
        if event.event == "eval" and event.step == 0:
            untrained.append(event.scores[primary] or 0.0)

    parts = [spec.model_copy(update={"seeds": (seed,), "data_seed": seed}) for seed in SEEDS] if writes else [spec]
    for part in parts:
        runs = {run.run: run for run in run_specs("measure", part)}
        with tempfile.TemporaryDirectory() as folder:
            train_comparison(
                part, list(runs.values()), folder=Path(folder), emit=emit, notice=facts.update, stop=lambda run: False
            )
    entry: dict[str, Any] = {"baseline": facts["baseline_score"]}
    if writes:
        entry["frozen"] = statistics.mean(untrained)
    for method, values in scores.items():
        entry[method] = {
            "mean": statistics.mean(values),
            "std": statistics.stdev(values),
            "seeds": values,
            "learning_rate": rates[method],
        }
    return entry


def measure(info: TaskInfo, steps: int) -> dict[str, Any]:
    """One line of the table."""
    started = time.perf_counter()
    task = get_task(info.id)
    entry = {"task": info.id, "model": model_of(info), "metric": info.metrics[0], "steps": steps}
    entry |= {"train_rows": info.train_rows, "eval_rows": info.eval_rows, **fine_tuned(info, steps)}
    full = entry["full"]["mean"]
    if info.modality == "text":
        train, evaluation = (
            task.rows(split, count, 0, {}) for split, count in (("train", info.train_rows), ("eval", info.eval_rows))
        )
        for name, scores in simple_baselines(info, train, evaluation).items():
            entry[name] = scores[info.metrics[0]]
            entry[f"full_minus_{name}"] = full - entry[name]
    if "head" in entry:
        entry["full_minus_head"] = full - entry["head"]["mean"]
    else:
        entry["full_minus_frozen"] = full - entry["frozen"]
    return entry | {"seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded tasks.")
    parser.add_argument("--out", type=Path, default=Path("assets/embedded_tasks.json"))
    parser.add_argument("--tasks", help="comma-separated ids, whose lines are replaced in the file; all where left out")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.tasks.split(",") if options.tasks else [info.id for info in list_tasks()]
    table: list[dict[str, Any]] = []
    if options.tasks and options.out.is_file():
        table = [line for line in json.loads(options.out.read_text())["tasks"] if line["task"] not in chosen]
    for info in list_tasks():
        if info.id in chosen:
            line = measure(info, STEPS.get(info.id, options.steps))
            print(json.dumps(line), flush=True)
            table.append(line)
    document = {
        "command": f"python scripts/measure_tasks.py --steps {options.steps}",
        "what": "score of the last step, from 0 to 1, mean over 3 seeds; bag of words: the best of four strengths. A "
        "seed draws the head; where a model writes there is none, and a seed draws the rows and their order",
        "environment": environment(torch.device("cpu")),
        "tasks": sorted(table, key=lambda line: line["task"]),
    }
    options.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
