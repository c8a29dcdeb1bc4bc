"""Measures what majority, bag of words, the head alone and full fine-tuning reach on every embedded task.

    python scripts/measure_tasks.py --out assets/embedded_tasks.json

The table shows that the tasks have something to show: words alone are not enough, and neither is the frozen backbone.
Bag of words: logistic regression (ridge for similarity) on counts of the words of either side, their overlap and
difference. Head and full: the engine itself, 3 seeds, equal settings.
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

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.backbones import list_models
from peft_core.methods import get_method
from peft_core.metrics.scores import score
from peft_core.records import ComparisonSpec, Event, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.tasks import Rows, TaskInfo, get_task, list_tasks
from peft_core.training import train_comparison
from peft_core.training.environment import environment

METHODS = ("head", "full")
SEEDS = (0, 1, 2)
STEPS = {"entailment": 1500, "paraphrase": 600}
"""Tasks that take longer to learn than the others."""


def bag_of_words(info: TaskInfo, train: Rows, evaluation: Rows) -> dict[str, float | None]:
    """The best of a few strengths of a linear model on word counts, chosen on the evaluation rows: a generous bound."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    sides = [name for name in ("text", "text2") if name in train.columns]
    counter = CountVectorizer(token_pattern=r"\S+", lowercase=True)
    counter.fit([text for name in sides for text in train.columns[name]])

    def features(rows: Rows) -> Any:
        counts = [counter.transform(rows.columns[name]) for name in sides]
        if len(counts) == 2:
            counts += [counts[0].minimum(counts[1]), abs(counts[0] - counts[1])]
        return hstack(counts).tocsr()

    x, y = features(train), features(evaluation)
    assert train.labels is not None and evaluation.labels is not None
    tried = []
    for strength in (0.01, 0.1, 1.0, 10.0):
        if info.labels is None:
            outputs = torch.tensor(Ridge(alpha=1 / strength).fit(x, train.labels).predict(y)).reshape(-1, 1)
            labels = torch.tensor(np.asarray(evaluation.labels, dtype=np.float64)).reshape(-1, 1)
        else:
            model = LogisticRegression(C=strength, max_iter=2000).fit(x, train.labels)
            outputs = torch.tensor(model.predict_proba(y))
            labels = torch.tensor(evaluation.labels)
        tried.append(score(info.metrics, outputs, labels))
    return max(tried, key=lambda scores: scores[info.metrics[0]] or 0.0)


def fine_tuned(info: TaskInfo, model: str, steps: int) -> dict[str, Any]:
    """Scores of the head alone and of full fine-tuning, per seed."""
    methods = tuple(MethodSpec(id=method) for method in METHODS)
    spec = ComparisonSpec(model=model, task=info.id, methods=methods, seeds=SEEDS, training=TrainingConfig(steps=steps))
    results: dict[str, list[dict[str, float | None]]] = {method: [] for method in METHODS}
    facts: dict[str, Any] = {}

    def emit(event: Event) -> None:
        if event.event == "state" and event.state == RunState.FAILED:
            raise SystemExit(f"{info.id} on {model}: {event.error}")
        if event.event == "state" and event.result is not None:
            results[runs[event.run].method.id].append(event.result.score)

    runs = {run.run: run for run in run_specs("measure", spec)}
    with tempfile.TemporaryDirectory() as folder:
        train_comparison(
            spec, list(runs.values()), folder=Path(folder), emit=emit, notice=facts.update, stop=lambda run: False
        )
    primary = info.metrics[0]
    entry: dict[str, Any] = {"baseline": facts["baseline_score"]}
    for method, scores in results.items():
        values = [one[primary] or 0.0 for one in scores]
        entry[method] = {
            "mean": statistics.mean(values),
            "std": statistics.stdev(values),
            "seeds": values,
            "learning_rate": get_method(method).Config().learning_rate,
        }
    return entry


def measure(info: TaskInfo, model: str, steps: int) -> dict[str, Any]:
    """One line of the table."""
    started = time.perf_counter()
    task = get_task(info.id)
    entry = {"task": info.id, "model": model, "metric": info.metrics[0], "steps": steps}
    entry |= {"train_rows": info.train_rows, "eval_rows": info.eval_rows, **fine_tuned(info, model, steps)}
    if info.modality == "text":
        rows = [
            task.rows(split, count, 0, {}) for split, count in (("train", info.train_rows), ("eval", info.eval_rows))
        ]
        entry["bag_of_words"] = bag_of_words(info, *rows)[info.metrics[0]]
        entry["full_minus_bag_of_words"] = entry["full"]["mean"] - entry["bag_of_words"]
    entry["full_minus_head"] = entry["full"]["mean"] - entry["head"]["mean"]
    return entry | {"seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded tasks.")
    parser.add_argument("--out", type=Path, default=Path("assets/embedded_tasks.json"))
    parser.add_argument("--tasks", help="comma-separated ids, whose lines are replaced in the file; all where left out")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = options.tasks.split(",") if options.tasks else [info.id for info in list_tasks()]
    models = {model.modality: model.id for model in list_models() if model.origin == "embedded"}
    table: list[dict[str, Any]] = []
    if options.tasks and options.out.is_file():
        table = [line for line in json.loads(options.out.read_text())["tasks"] if line["task"] not in chosen]
    for info in list_tasks():
        if info.id in chosen:
            model = models["text" if info.modality == "any" else info.modality]
            line = measure(info, model, STEPS.get(info.id, options.steps))
            print(json.dumps(line), flush=True)
            table.append(line)
    document = {
        "command": f"python scripts/measure_tasks.py --steps {options.steps}",
        "what": "score of the last step, mean over 3 seeds; bag of words: the best of four strengths",
        "environment": environment(torch.device("cpu")),
        "tasks": sorted(table, key=lambda line: line["task"]),
    }
    options.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
