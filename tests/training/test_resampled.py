"""A run's score on resamples of the evaluation rows: of the selected model, on rows that all runs share."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from statistics import fmean

import pytest

from peft_core.metrics.resampling import RESAMPLES
from peft_core.records import ComparisonSpec, MethodSpec, RunResult, RunState, TrainingConfig, run_specs
from peft_core.training import train_comparison

TRAINING = {"steps": 6, "batch_size": 16, "eval_every": 3}


def results(folder: Path, *methods: str, stop=lambda run: False, resume: bool = False, **spec) -> list[RunResult]:
    training = TrainingConfig(**TRAINING | spec.pop("training", {}))
    chosen = tuple(MethodSpec.parse(method) for method in methods)
    values = {"methods": chosen, "seeds": (0,), "training": training, "train_rows": 64, "eval_rows": 40, **spec}
    comparison, events = ComparisonSpec(**values), []
    runs = run_specs("c", comparison)
    train_comparison(
        comparison, runs, folder=folder, emit=events.append, notice=lambda fact: None, stop=stop, resume=resume
    )
    ends = [event for event in events if event.event == "state" and event.state is RunState.FINISHED]
    return [end.result for end in sorted(ends, key=lambda end: end.run)]


def test_equal_models_have_equal_resamples_around_their_score(tmp_path):
    one, same, other = results(tmp_path, "lora:rank=2", "lora:rank=2,alpha=2", "bitfit", task="sentiment")
    assert one.score == same.score and one.resampled == same.resampled, "the scale is 1 in both"
    assert other.resampled is not None and len(other.resampled) == len(one.resampled) == RESAMPLES
    (score,) = {result.score["accuracy"] for result in (one, same)}
    assert fmean(one.resampled) == pytest.approx(score, abs=0.02), "of 40 rows: a deviation of 0.08 over sqrt(1000)"
    assert all(value * 40 == pytest.approx(round(value * 40), abs=1e-3) for value in one.resampled)


@pytest.mark.parametrize(
    ("model", "task", "rows"),
    [
        ("tiny-text", "acceptability+sentiment", 64),
        ("tiny-text", "similarity", 64),
        ("tiny-text", "span_qa", 16),
        ("tiny-seq2seq", "translation", 16),
    ],
)
def test_every_kind_of_task_is_resampled(tmp_path, model, task, rows):
    spec = {"model": model, "task": task, "train_rows": rows, "eval_rows": rows, "training": {"steps": 1}}
    (result,) = results(tmp_path, "lora:rank=2", **spec)
    known = [value for value in result.resampled if value is not None]
    assert len(result.resampled) == RESAMPLES and len(known) > 0.9 * RESAMPLES
    score = next(iter(result.score.values()))
    assert min(known) <= score <= max(known)
    assert fmean(known) == pytest.approx(score, abs=0.05)


def test_a_resumed_run_resamples_its_best_model_too(tmp_path):
    spec = {"training": {"selection": "best", "learning_rate": 0.5}, "task": "sentiment"}
    (whole,) = results(tmp_path / "whole", "lora:rank=2", **spec)
    assert whole.selected_step < 6
    calls = count()
    assert not results(tmp_path / "parts", "lora:rank=2", stop=lambda run: next(calls) > 9, **spec)
    (resumed,) = results(tmp_path / "parts", "lora:rank=2", resume=True, **spec)
    assert (resumed.selected_step, resumed.resampled) == (whole.selected_step, whole.resampled)
