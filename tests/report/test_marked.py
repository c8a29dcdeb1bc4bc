"""Measured rows: each with its model, data, seeds and machine; no quoted figure comes among them."""

from __future__ import annotations

import pytest

from peft_core.report.marked import encoder_rows, mark, reproduction_rows, shipped_encoder
from peft_core.report.quoted import quoted_figures
from peft_core.report.reproduction import shipped_reproduction
from tests.report.reproduced import MACHINE, reproduced


def test_a_mark_counts_seeds_and_names_machines() -> None:
    assert mark("m", "d", [3], ["one"]) == "measured: m, d, seed 3, one"
    assert mark("m", "d", [0, 1], ["one", "two"]) == "measured: m, d, 2 seeds, one; two"


def test_a_method_of_a_task_comes_once_with_its_figures() -> None:
    document = reproduced()
    rows = reproduction_rows(document)
    keys = [(row["task"], row["method"]) for row in rows]
    assert len(keys) == len(set(keys)) == len({(cell["task"], cell["method"]) for cell in document["cells"]})
    for row in rows:
        scores = [
            cell["score"]["accuracy"]
            for cell in document["cells"]
            if (cell["task"], cell["method"]) == (row["task"], row["method"])
        ]
        known = [score for score in scores if score is not None]
        assert row["n"] == len(known)
        assert row["score"] == pytest.approx(sum(known) / len(known))
        assert row["mark"].startswith(f"measured: {row['model']}, {row['task']} (made by code)")
        assert row["mark"].endswith(f"{MACHINE}, 1 thread")
        assert row["model"] == document["plan"]["models"][row["task"]]


def test_what_is_shipped_gives_rows_of_every_cell() -> None:
    encoder, own = shipped_encoder(), shipped_reproduction()
    assert encoder is not None and own is not None
    rows = encoder_rows(encoder)
    assert [row["score"] for row in rows] == [row["mean"] for row in encoder["summary"]]
    assert all("AMD" in row["mark"] and row["model"] in row["mark"] and row["task"] in row["mark"] for row in rows)
    assert {row["task"] for row in reproduction_rows(own)} == set(own["plan"]["models"])


def test_a_quoted_figure_is_refused() -> None:
    with pytest.raises(TypeError, match="measured here"):
        reproduction_rows({"kind": "quoted"})
    with pytest.raises(TypeError, match="measured here"):
        encoder_rows(quoted_figures()[0])  # type: ignore[arg-type]
