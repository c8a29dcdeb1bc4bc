"""Validation rows: apart by content from training and evaluation rows, and the only ones that are scored."""

from __future__ import annotations

import numpy as np
import pytest

from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.tasks import Rows, get_task, list_tasks
from peft_core.tasks._stream import TextStream
from peft_core.training import train_comparison
from peft_core.training.held_back import check_held_back, held_back_rows, train_on_held_back


def contents(rows: Rows) -> list[tuple[object, ...]]:
    columns = list(rows.columns.values())
    return [
        tuple(cell.tobytes() if isinstance(cell, np.ndarray) else cell for cell in row)
        for row in zip(*columns, strict=True)
    ]


def spec(task="acceptability", **fields) -> ComparisonSpec:
    training = TrainingConfig(steps=6, batch_size=16, eval_every=6, learning_rate=fields.pop("learning_rate", None))
    values = {"methods": (MethodSpec(id="lora"),), "seeds": (0,), "eval_rows": 120, "training": training}
    return ComparisonSpec(task=task, **values | fields)


@pytest.mark.parametrize("task", [info.id for info in list_tasks()])
def test_validation_rows_are_neither_trained_on_nor_reported(task):
    found = get_task(task)
    train, validation = held_back_rows(found, {}, spec(task))
    reported = found.rows("eval", found.info.eval_rows, 0, {})
    assert len(validation) == 120
    assert len(train) == min(found.info.train_rows, found.info.max_train_rows - 120)
    assert not set(contents(validation)) & (set(contents(train)) | set(contents(reported)))


def test_training_rows_are_those_of_a_comparison():
    found = get_task("sentiment")
    train, _ = held_back_rows(found, {}, spec("sentiment", train_rows=50))
    assert contents(train) == contents(found.rows("train", 50, 0, {}))


def table(path, texts: int, rows: int = 400) -> str:
    lines = [f"film {number % texts} was {'good' if number % 2 else 'bad'},{number % 2}" for number in range(rows)]
    path.write_text("\n".join(["review,liked", *lines]))
    return str(path)


def test_rows_of_a_table_that_repeat_are_trained_on_or_validated_on(tmp_path):
    path = table(tmp_path / "films.csv", texts=40)
    train, validation = held_back_rows(get_task(path, {}), {}, spec(path, train_rows=55))
    assert len(validation) == 115 and not set(contents(train)) & set(contents(validation))
    path = table(tmp_path / "few.csv", texts=5)
    with pytest.raises(InputError, match="its training rows repeat"):
        held_back_rows(get_task(path, {}), {}, spec(path, train_rows=300, eval_rows=20))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": "digits", "model": "tiny-vision", "eval_rows": 1347}, "validation_rows"),
        ({"train_rows": 19_990}, "validation_rows"),
        ({"train_rows": 8}, "training.batch_size"),
        ({"methods": (MethodSpec(id="vpt_deep"),)}, "method"),
        ({"task": "digits"}, "task"),
    ],
)
def test_what_cannot_run_is_refused_before(fields, field):
    with pytest.raises(InputError) as refused:
        check_held_back(spec(**fields))
    assert refused.value.field == field


def scores(trainer, folder, rates=(0.001, 0.01)) -> list[float]:
    methods = tuple(MethodSpec(id="lora", options={"learning_rate": rate}) for rate in rates)
    comparison = spec(methods=methods, train_rows=64)
    events: list = []
    runs = run_specs("c", comparison)
    trainer(comparison, runs, folder=folder, emit=events.append, notice=lambda facts: None, stop=lambda run: False)
    ends = {event.run: event for event in events if event.event == "state"}
    assert all(ends[run.run].state is RunState.FINISHED for run in runs)
    return [ends[run.run].result.score["matthews_correlation"] for run in runs]


def test_other_evaluation_rows_change_no_score_that_decides(tmp_path, monkeypatch):
    before, reported = scores(train_on_held_back, tmp_path), scores(train_comparison, tmp_path / "compared")
    true_rows = TextStream.rows

    def swapped(self, split, count, seed):
        rows = true_rows(self, split, count, seed)
        return Rows(rows.columns, 1 - rows.labels) if split == "eval" else rows

    monkeypatch.setattr(TextStream, "rows", swapped)
    assert scores(train_on_held_back, tmp_path) == before
    swapped_scores = scores(train_comparison, tmp_path / "compared")
    assert swapped_scores == pytest.approx([-score for score in reported]) and swapped_scores != reported


def test_nothing_is_left_on_disk(tmp_path):
    scores(train_on_held_back, tmp_path)
    assert not list(tmp_path.iterdir())
