"""What a run was made of: the commit of the code, checksums of weights and rows, versions."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import peft_core
from peft_core.records import ComparisonSpec, MethodSpec, TrainingConfig, run_specs
from peft_core.training import train_comparison
from peft_core.training.origins import code_origin, rows_sha256, weights_sha256
from peft_core.training.problems import Encoded
from peft_core.training.problems._spans import SpanRows
from peft_core.training.problems._texts import TextRows
from tests.training.test_loop import DATA, IMAGES

WEIGHTS = Path(__file__).parents[2] / "assets" / "models" / "tiny-text"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_checkout_names_its_commit_and_says_whether_files_differ(tmp_path):
    file = tmp_path / "peft_core" / "file.py"
    file.parent.mkdir()
    file.write_text("one")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "peft_core")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "results.json").write_text("not the code")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_origin(tmp_path) == {"version": peft_core.__version__, "commit": commit, "modified": False}
    file.write_text("two")
    code_origin.cache_clear()
    assert code_origin(tmp_path)["modified"] is True


def test_without_a_checkout_of_its_own_the_version_stands_alone(tmp_path):
    git(tmp_path, "init", "-q")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert code_origin(inside) == {"version": peft_core.__version__}


@pytest.mark.parametrize("data", [DATA, IMAGES])
def test_a_checksum_follows_every_row_and_target(data):
    first = rows_sha256([data])
    assert first == rows_sha256([data])
    labels = data.evaluation.labels.clone()
    labels[-1] = (labels[-1] + 1) % 3
    other = replace(data, evaluation=replace(data.evaluation, labels=labels))
    assert rows_sha256([other]) != first
    assert rows_sha256([replace(data, train=data.evaluation, evaluation=data.train)]) != first


def test_a_checksum_follows_what_answers_are_scored_against():
    rows = Encoded({"input_ids": [[5, 6]]}, None, [[7, 1]], {"input_ids": 0})
    texts = TextRows(rows.tokens, None, rows.labels, rows.pad, rows, (("a", "b"),), 2, None)
    spans = SpanRows(rows.tokens, None, torch.tensor([[0, 1]]), rows.pad, (0,), (((0, 1),),), ("a b",), ((("a", 0),),))
    others = (replace(texts, references=(("a", "c"),)), replace(spans, answers=((("b", 2),),)))
    for one, other in zip((texts, spans), others, strict=True):
        data = replace(DATA, evaluation=one)
        assert rows_sha256([data]) == rows_sha256([replace(DATA, evaluation=replace(one))])
        assert rows_sha256([data]) != rows_sha256([replace(DATA, evaluation=other)])


def test_a_run_records_what_it_was_made_of(tmp_path):
    spec = ComparisonSpec(
        methods=(MethodSpec.parse("head"),),
        seeds=(0,),
        train_rows=4,
        eval_rows=4,
        training=TrainingConfig(steps=1, batch_size=4, device="cpu", max_length=16),
    )
    facts: dict = {}
    train_comparison(
        spec,
        run_specs("c", spec),
        folder=tmp_path,
        emit=lambda event: None,
        notice=facts.update,
        stop=lambda run: False,
    )
    found = facts["environment"]
    assert found["code"] == code_origin()
    one = hashlib.sha256((WEIGHTS / "model.safetensors").read_bytes()).digest()
    assert found["model"]["weights_sha256"] == weights_sha256(WEIGHTS) == hashlib.sha256(one).hexdigest()
    assert len(found["data"]["acceptability"]["rows_sha256"]) == 64
    assert {"device", "device_name", "threads", "python", "platform"} <= found.keys()
    assert {"torch", "transformers", "datasets", "pyarrow", "pydantic", "huggingface-hub"} <= found["versions"].keys()
    assert found["versions"]["torch"] == torch.__version__
