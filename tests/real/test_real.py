"""Short runs of really trained weights on real rows. What they reach when trained for long: scripts/bench_real.py."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from peft_core.backbones import list_models
from peft_core.methods import list_methods
from peft_core.records import MethodSpec, TrainingConfig
from peft_core.tasks import get_task

ROOT = Path(__file__).parents[2]
FAST_GROWTH = {"increlora": ":target_rank=2"}
"""What a few steps leave time for."""


def methods(*texts: str) -> tuple[MethodSpec, ...]:
    return tuple(MethodSpec.parse(text) for text in texts)


def test_the_encoder_trains_on_the_real_cola(data, encoder, compare, monkeypatch):
    monkeypatch.setenv("RANKLAB_DATA", str(data))
    few = ["--steps", "3", "--train-rows", "24", "--eval-rows", "16", "--batch-size", "8", "--max-length", "32"]
    document = compare("--task", "glue/cola", "--model", encoder, "--method", "lora", *few)
    (run,) = document["runs"]
    assert run["state"] == "finished" and "matthews_correlation" in run["score"]
    assert "24 training rows, 16 evaluation rows; trained on the train split, scored on the validation" in run["split"]
    assert "not the official split" not in run["split"]


def test_a_table_nobody_has_seen_and_a_folder(encoder, compare, tmp_path):
    words = {"wonderful": "up", "awful": "down", "lovely": "up", "dreadful": "down"}
    nouns = ("film", "plot", "song", "food", "hotel", "trip", "book")
    lines = [f'"the {noun} was {word}",{label}' for noun in nouns for word, label in words.items()]
    (tmp_path / "table.csv").write_text("\n".join(["remark,verdict", *lines]) + "\n")
    few = ["--steps", "30", "--batch-size", "8", "--eval-every", "30"]
    both = ["--method", "lora", "--method", "capaboost_lora"]
    document = compare("--model", encoder, "--task", tmp_path / "table.csv", *both, *few)
    assert [run["method"] for run in document["runs"]] == ["lora", "capaboost_lora"]
    for run in document["runs"]:
        assert run["state"] == "finished" and run["score"]["accuracy"] >= 0.8 > run["baseline_score"]


def test_every_low_rank_method_trains_the_llama_on_e2e(data, stories, train):
    ids = [method.id for method in list_methods() if method.family == "low-rank"]
    assert {"lora", "capaboost_lora"} < set(ids)
    found = train(
        model=str(stories),
        task=str(data / "text/e2e_nlg/validation.csv.gz"),
        task_options={"kind": "generation", "text": "source", "target": "target"},
        methods=methods(*(name + FAST_GROWTH.get(name, "") for name in ids)),
        train_rows=16,
        eval_rows=4,
        training=TrainingConfig(steps=4, batch_size=4, eval_every=4, max_new_tokens=12, learning_rate=5e-3),
    )
    for label, line in found.items():
        first, last = line["losses"]
        assert last < first, label
        assert line["result"].score["bleu"] is not None and line["result"].score["bleu"] >= 0


def test_photographs_with_tiny_vision(data, train, monkeypatch):
    monkeypatch.setenv("RANKLAB_DATA", str(data))
    found = train(
        model="tiny-vision",
        task="cifar10",
        methods=methods("lora", "capaboost_pfeiffer"),
        train_rows=640,
        eval_rows=100,
        training=TrainingConfig(steps=40, batch_size=16, eval_every=40),
    )
    for line in found.values():
        assert line["losses"][1] < line["losses"][0]
        assert "not the official split: 10,000 training and 2,000 evaluation rows" in line["result"].split


def test_spans_of_the_local_squad_rows(data, encoder, train, monkeypatch):
    monkeypatch.setenv("RANKLAB_DATA", str(data))
    found = train(
        model=encoder,
        task="squad",
        methods=methods("lora"),
        train_rows=8,
        eval_rows=4,
        training=TrainingConfig(steps=4, batch_size=4, eval_every=4, max_length=128, learning_rate=2e-3),
    )
    line = found["lora"]
    assert line["losses"][1] < line["losses"][0]
    assert set(line["result"].score) == {"exact_match", "qa_f1"}
    assert "not the official split: 2,256 training and 654 evaluation rows" in line["result"].split


def test_romanian_with_tiny_seq2seq(data, train):
    if "tiny-seq2seq" not in {model.id for model in list_models()}:
        pytest.skip("the embedded model tiny-seq2seq is not here")
    found = train(
        model="tiny-seq2seq",
        task=str(data / "text/roen_xquad"),
        task_options={"kind": "generation", "text": "source", "target": "target"},
        methods=methods("lora", "capaboost_lora"),
        train_rows=32,
        eval_rows=8,
        training=TrainingConfig(steps=6, batch_size=8, eval_every=6, max_new_tokens=12),
    )
    for line in found.values():
        assert line["losses"][1] < line["losses"][0] and line["result"].score["bleu"] is not None


def test_the_squad_rows_are_read_as_they_are_written(data, monkeypatch):
    monkeypatch.setenv("RANKLAB_DATA", str(data))
    with gzip.open(data / "squad/validation.jsonl.gz", "rt", encoding="utf-8") as stream:
        written = {(row["question"], row["context"]) for row in map(json.loads, stream)}
    rows = get_task("squad").rows("eval", 654, 0, {})
    assert set(zip(rows.columns["question"], rows.columns["context"], strict=True)) == written
