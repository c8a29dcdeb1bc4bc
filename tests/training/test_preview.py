"""Token lengths before a start: of spans, of texts to write, of models that are and are not at hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from peft_core.backbones import _processors, load_processor
from peft_core.backbones._catalog import ASSETS
from peft_core.records import InputError
from peft_core.training.preview import SAMPLE, described, token_lengths


def table(folder: Path, header: list[str], rows: list[list[str]]) -> str:
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def test_long_contexts_are_read_in_windows_and_not_cut(tmp_path: Path) -> None:
    rows = [[f"where is {n}?", f"the cup {n} is in the box " * (1 + 20 * (n % 2)), "the box"] for n in range(40)]
    found = token_lengths("tiny-text", table(tmp_path, ["question", "context", "answer"], rows), {}, 64)
    assert found is not None and found.windows
    assert 0 < found.cut < found.sampled == found.rows and found.longest > 64
    assert "are read in several windows" in str(found)


def test_a_decoder_reads_source_and_target(tmp_path: Path) -> None:
    rows = [[f"name {n} thing {n}", f"here is the long answer number {n}"] for n in range(40)]
    path = table(tmp_path, ["source", "target"], rows)
    both, source = (token_lengths(model, path) for model in ("tiny-decoder", "tiny-seq2seq"))
    assert both is not None and source is not None
    assert both.mean > source.mean


def test_a_sample_of_a_long_table_is_looked_at(tmp_path: Path) -> None:
    rows = [[f"text number {n}", str(n % 2)] for n in range(3000)]
    found = token_lengths("tiny-text", table(tmp_path, ["text", "label"], rows), {"eval_share": 0.5}, 2)
    assert found is not None and found.sampled == SAMPLE < found.rows
    assert found.cut == SAMPLE and found.cut_rows == found.rows


def test_huge_cells_do_not_keep_a_page_waiting(tmp_path: Path) -> None:
    rows = [[f"{n} " + "word " * 24_000, str(n % 2)] for n in range(40)]
    found = token_lengths("tiny-text", table(tmp_path, ["text", "label"], rows))
    assert found is not None and 0 < found.sampled < 20 < found.rows and found.cut == found.sampled


def test_images_have_no_tokens() -> None:
    assert described("tiny-vision", "digits")["tokens"] is None


def test_a_copy_in_the_cache_is_read_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processors, "cached_model", lambda hub: None)
    with pytest.raises(InputError, match="not at hand"):
        load_processor("owner/name")
    monkeypatch.setattr(_processors, "cached_model", lambda hub: ASSETS / "tiny-text")
    assert (
        load_processor("owner/name@main")("a film")["input_ids"] == load_processor("tiny-text")("a film")["input_ids"]
    )


def test_a_look_is_strict_json(tmp_path: Path) -> None:
    rows = [[f"text {n}", "" if n % 2 else "x"] for n in range(20)]
    for task in (table(tmp_path, ["text", "label"], rows), "acceptability", "hub:../x", "/nowhere.csv"):
        found = json.loads(json.dumps(described("tiny-text", task), allow_nan=False))
        assert found["task"] is None or not found["problems"]
