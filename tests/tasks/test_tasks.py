"""What every embedded task promises: known rows, splits that cannot overlap, one sentence for bad input."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from peft_core.records import InputError
from peft_core.tasks import Rows, get_task, list_tasks, task_ids

IDS = task_ids()
GENERATED = [task for task in IDS if task != "digits"]
FEW = 60
GOLDEN: dict[str, str] = {
    "acceptability": "1c8fead2fd76e17e",
    "data_to_text": "c03ba1ebd929a5b7",
    "digits": "5e8de12157f75e23",
    "entailment": "1c701e3696442717",
    "paraphrase": "1ed0c1b3aaa20a6f",
    "rank_probe": "9994276ae00162b0",
    "sentiment": "554f140c136608c2",
    "shape_count": "7361ba7c4ba9bcd2",
    "shape_orientation": "17c99de57949b746",
    "similarity": "4e56c6a4ab8ec887",
    "span_qa": "122dff74dde64145",
    "translation": "b51131faecef8b54",
}
"""Digests of the first rows: they stay the same in every process, and a change of the rows is seen."""
COLUMNS = {"span": {"question", "context", "answers"}, "generation": {"text", "target"}}


def row_keys(rows: Rows) -> list[Any]:
    """One hashable value a row, of all its columns."""
    columns = [
        [image.tobytes() for image in column] if isinstance(column, np.ndarray) else column
        for column in rows.columns.values()
    ]
    return list(zip(*columns, strict=True))


def digest(rows: Rows) -> str:
    labels = b"" if rows.labels is None else np.asarray(rows.labels, dtype=np.float32).tobytes()
    texts = [column for name, column in rows.columns.items() if name != "image"]
    return hashlib.sha256(repr(texts).encode() + labels).hexdigest()[:16]


def test_the_twelve_tasks_are_found() -> None:
    expected = (
        "acceptability data_to_text digits entailment paraphrase rank_probe sentiment shape_count shape_orientation "
        "similarity span_qa translation"
    )
    assert list(IDS) == expected.split()


def test_listing_tasks_loads_no_heavy_library() -> None:
    code = (
        "import sys; from peft_core.tasks import list_tasks; list_tasks(); "
        "print([name for name in ('torch', 'sklearn', 'PIL', 'transformers') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("task", IDS)
def test_info_fits_the_rows(task: str) -> None:
    found = get_task(task)
    info = found.info
    rows = found.rows("train", FEW, 0, {})
    assert info.id == task
    assert len(rows) == FEW
    assert (info.labels is None) or info.outputs == len(info.labels)
    assert info.metrics and info.train_rows <= info.max_train_rows and info.eval_rows <= info.max_eval_rows
    assert set(rows.columns) <= COLUMNS.get(info.problem, {"text", "text2", "image"})
    if rows.labels is None:
        assert found.teacher is not None or info.problem in COLUMNS
    elif info.labels is not None:
        assert rows.labels.dtype == np.int64 and set(rows.labels) <= set(range(info.outputs))
    else:
        assert rows.labels.dtype == np.float32
    if "image" in rows.columns:
        assert rows.columns["image"].shape == (FEW, 32, 32, 3) and rows.columns["image"].dtype == np.uint8


@pytest.mark.parametrize("task", GENERATED)
def test_generated_tasks_have_enough_rows(task: str) -> None:
    info = get_task(task).info
    assert info.max_train_rows >= 4000 and info.max_eval_rows >= 1000


@pytest.mark.parametrize("task", IDS)
def test_splits_are_disjoint_and_rows_unique(task: str) -> None:
    info = get_task(task).info
    counts = min(4000, info.max_train_rows), min(1000, info.max_eval_rows)
    train, held_out = (
        row_keys(get_task(task).rows(split, count, 0, {}))
        for split, count in zip(("train", "eval"), counts, strict=True)
    )
    assert len(set(train)) == counts[0] and len(set(held_out)) == counts[1]
    assert not set(train) & set(held_out)


@pytest.mark.parametrize("task", [task for task in GENERATED if task != "rank_probe"])
def test_splits_are_disjoint_across_seeds(task: str) -> None:
    train = row_keys(get_task(task).rows("train", 1000, 1, {}))
    assert not set(train) & set(row_keys(get_task(task).rows("eval", 300, 2, {})))


@pytest.mark.parametrize("task", IDS)
def test_fewer_rows_are_a_prefix_and_seeds_differ(task: str) -> None:
    found = get_task(task)
    few, more = found.rows("eval", 15, 3, {}), found.rows("eval", 40, 3, {})
    assert row_keys(few) == row_keys(more)[:15]
    if few.labels is not None and more.labels is not None:
        assert (few.labels == more.labels[:15]).all()
    assert row_keys(found.rows("eval", 15, 4, {})) != row_keys(few)


@pytest.mark.parametrize("task", IDS)
def test_first_rows_are_golden(task: str) -> None:
    assert digest(get_task(task).rows("train", FEW, 0, {})) == GOLDEN[task]


@pytest.mark.parametrize("task", [info.id for info in list_tasks() if info.labels])
def test_classes_are_balanced(task: str) -> None:
    info = get_task(task).info
    labels = get_task(task).rows("train", 1000, 0, {}).labels
    shares = np.bincount(labels, minlength=info.outputs) / 1000
    assert shares.min() > 0.7 / info.outputs and shares.max() < 1.3 / info.outputs


def test_acceptability_comes_in_minimal_pairs() -> None:
    rows = get_task("acceptability").rows("train", 200, 0, {})
    assert rows.labels is not None
    assert (rows.labels.reshape(-1, 2).sum(1) == 1).all()
    for one, other in zip(rows.columns["text"][::2], rows.columns["text"][1::2], strict=True):
        assert one != other and len(one.split()) == len(other.split())


def test_digits_are_stratified() -> None:
    rows = get_task("digits").rows("eval", 450, 0, {})
    assert rows.labels is not None
    counts = np.bincount(rows.labels)
    assert counts.min() >= 43 and counts.max() <= 47


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: get_task("colour"), "task is 'colour'; it must be one of acceptability, data_to_text"),
        (lambda: get_task("_stream"), "task is '_stream'; it must be one of"),
        (lambda: get_task("sentiment").rows("train", 0, 0, {}), "train_rows is 0; it must be a whole number"),
        (lambda: get_task("digits").rows("eval", 451, 0, {}), "eval_rows is 451; it must be a whole number"),
        (lambda: get_task("sentiment").check({"tone": 1}), "task_options.tone is 1; this task has no options."),
        (lambda: get_task("rank_probe").check({"ranks": 1}), "task_options.ranks is 1; the options are spectrum, rank"),
        (lambda: get_task("rank_probe").check({"spectrum": "round"}), "task_options.spectrum is 'round'; it must be"),
        (lambda: get_task("rank_probe").check({"rank": 0}), "task_options.rank is 0; it must be a whole number"),
        (lambda: get_task("rank_probe").check({"rank": True}), "task_options.rank is True; it must be a whole number"),
        (lambda: get_task("rank_probe").check({"strength": float("nan")}), "task_options.strength is nan; it must be"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_sentence(call: Any, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(sentence)
