"""The benchmark on real rows: its intervals, what it keeps, and that the table in the repository is its JSON's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from peft_core.methods import get_method
from scripts import bench_real

FOLDER = Path(__file__).parents[1] / "assets" / "benchmarks"
KEPT = FOLDER / "real_encoder.json"


def document() -> dict:
    return json.loads(KEPT.read_text(encoding="utf-8"))


def test_the_table_is_what_the_json_says():
    found = document()
    assert KEPT.with_suffix(".md").read_text(encoding="utf-8") == bench_real.page(found)
    assert found["summary"] == bench_real.summary(found["cells"])


def test_every_cell_follows_from_its_rows():
    for line in document()["cells"]:
        correct = np.array([int(right) for right in line["correct"]])
        assert len(correct) == line["eval_rows"] and correct.mean() == pytest.approx(line["accuracy"])
        assert line["interval"] == pytest.approx(bench_real.interval(correct))
        assert line["above_majority"] == (line["interval"][0] > line["majority"])


def test_cells_of_a_task_were_trained_under_equal_settings():
    for task in {line["task"] for line in document()["cells"]}:
        of = [line["asked"] for line in document()["cells"] if line["task"] == task]
        equal = [{name: value for name, value in asked.items() if name != "method"} for asked in of]
        assert all(asked == equal[0] for asked in equal), task


def test_the_interval_is_that_of_a_share():
    values = np.r_[np.ones(300), np.zeros(100)]
    low, high = bench_real.interval(values)
    error = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - error, abs=0.005) and high == pytest.approx(0.75 + error, abs=0.005)
    assert bench_real.interval(values) == [low, high]


def options(tmp_path: Path, data: Path, **values) -> argparse.Namespace:
    given = {"data": data, "model": "tiny-text", "tasks": "glue/rte", "methods": ["lora"], "seeds": 1, "steps": 2}
    given |= {
        "batch_size": 4,
        "max_length": 32,
        "train_rows": 8,
        "eval_rows": 12,
        "note": [],
        "out": tmp_path / "a.json",
    }
    return argparse.Namespace(**given | values)


def test_cells_are_measured_once_and_others_are_kept_as_tried(tmp_path, monkeypatch):
    for part, count in (("train", 12), ("validation", 14)):
        (tmp_path / "glue/rte").mkdir(parents=True, exist_ok=True)
        rows = [f"word {row},thing {row},{'not_' if row % 3 else ''}entailment" for row in range(count)]
        (tmp_path / f"glue/rte/{part}.csv").write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n")
    path = tmp_path / "a.json"
    start = {"title": "t", "resamples": bench_real.RESAMPLES, "commands": [], "notes": [], "cells": [], "tried": []}
    monkeypatch.setattr(bench_real, "empty", lambda model: json.loads(json.dumps(start)))

    def run(**values) -> dict:
        monkeypatch.setattr(bench_real, "read_options", lambda: options(tmp_path, tmp_path, **values))
        bench_real.main()
        return json.loads(path.read_text())

    first = run()
    (line,) = first["cells"]
    assert line["accuracy"] == pytest.approx(line["score"]["accuracy"]) and len(line["correct"]) == 12
    usual = get_method("lora").Config().learning_rate
    assert line["majority"] >= 0.5 and line["learning_rate"] == usual and not first["tried"]
    assert run() == first
    second = run(methods=["lora:learning_rate=0.001"])
    assert [line["learning_rate"] for line in second["cells"]] == [1e-3]
    assert [line["learning_rate"] for line in second["tried"]] == [usual]
    assert f"{usual:g}" in path.with_suffix(".md").read_text()
