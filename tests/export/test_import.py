"""`import`: adapters from elsewhere become finished runs, which can be shown, exported and used."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers

from peft_core.backbones._catalog import ASSETS
from peft_core.cli import main
from peft_core.export.native import load_native
from peft_core.report import report_html, results_document
from peft_core.runs import home, stored_view
from tests.export.test_inspect import put
from ui.service import payload

TEXTS = ["the cat sees a dog", "a dog"]


def made_elsewhere(folder: Path, model: str = "tiny-text", outputs: int = 3, **options):
    """A LoRA adapter of PEFT on an embedded model, its B and head random; its model."""
    torch.manual_seed(1)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(ASSETS / model, num_labels=outputs)
    given = {"task_type": "SEQ_CLS", "r": 5, "lora_alpha": 9, "target_modules": ["query", "dense"]} | options
    adapted = peft.get_peft_model(base, peft.LoraConfig(**given))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(0, 0.2)
    adapted.save_pretrained(folder)
    return adapted.eval()


def imported(capsys, *arguments) -> str:
    assert main(["import", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)["id"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny-text", {"exclude_modules": ["classifier.dense"], "rank_pattern": {"layer.2.*query": 2}}),
        ("tiny-text", {"target_modules": ["value"], "use_rslora": True, "alpha_pattern": {"layer.0.*value": 3}}),
        ("tiny-text", {"target_modules": ["key"], "r": 160}),
        ("tiny-decoder", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_an_adapter_made_by_peft_answers_as_a_run_what_it_answers_there(model, options, tmp_path, capsys):
    adapted = made_elsewhere(tmp_path / "theirs", model, **options)
    run = imported(capsys, tmp_path / "theirs", "--model", model)
    view = stored_view(run.rpartition("-")[0])
    document = results_document(view)["runs"][0]
    assert document["state"] == "finished" and document["score"] == {"accuracy": None}
    assert document["rank"]["numerical_max"] == max(min(value, 128) for value in (options.get("r", 5),))
    assert any(event["event"] == "rank" for event in view.events)
    assert "imported" in json.dumps(payload(view, 0, table=True)) and run.rpartition("-")[0] in report_html(view)
    for kind in ("merged", "peft", "native"):
        assert main(["export", run, "--format", kind, "--to", str(tmp_path / kind)]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    expected = adapted(**batch).logits
    trained = load_native(tmp_path / "native")
    with trained.attached.active():
        torch.testing.assert_close(trained.attached.logits(batch), expected, rtol=1e-5, atol=1e-5)
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-5, atol=1e-4)
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(ASSETS / model, num_labels=3).eval()
    again = peft.PeftModel.from_pretrained(auto, tmp_path / "peft").eval()
    torch.testing.assert_close(again(**batch).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["capaboost_lora:rank=8", "adapter_pfeiffer:bottleneck=4"])
def test_a_native_folder_comes_back_as_the_run_that_it_was(store, tmp_path, capsys, method):
    run = store.runs[method, 1]
    assert main(["export", run, "--format", "native", "--to", str(tmp_path / "first")]) == 0
    before = next(row for row in stored_view(store.id).runs if row.run == run)
    capsys.readouterr()
    again = imported(capsys, tmp_path / "first")
    row = stored_view(again.rpartition("-")[0]).runs[0]
    assert row.config == before.config and row.seed == before.seed == 1 and row.method.id == before.method.id
    assert row.result == before.result.model_copy(update={"resampled": None})
    assert main(["export", again, "--format", "native", "--to", str(tmp_path / "second")]) == 0
    for name in ("adapter.safetensors", "head.safetensors", "adapter.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_our_own_peft_folder_keeps_its_labels(store, tmp_path, capsys):
    run = store.runs["capaboost_lora:rank=8", 0]
    assert main(["export", run, "--format", "peft", "--to", str(tmp_path / "peft")]) == 0
    capsys.readouterr()
    again = imported(capsys, tmp_path / "peft")
    assert main(["export", again, "--format", "merged", "--to", str(tmp_path / "merged")]) == 0
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["id2label"] == {"0": "unacceptable", "1": "acceptable"}


@pytest.mark.parametrize(
    ("options", "model", "words"),
    [
        ({"target_modules": ["word_embeddings"]}, "tiny-text", "no map"),
        ({"bias": "lora_only"}, "tiny-text", "it also changes"),
        ({"task_type": "TOKEN_CLS"}, "tiny-text", "TOKEN_CLS"),
        ({"task_type": None}, "tiny-text", "no task head"),
        ({}, "tiny-seq2seq", "no task head"),
        ({}, "tiny-decoder", "no task head"),
        ({}, "nothing", "nothing"),
    ],
)
def test_what_has_no_place_is_one_sentence_and_nothing_is_stored(options, model, words, tmp_path, capsys):
    made_elsewhere(tmp_path / "theirs", exclude_modules=["classifier.dense"], **options)
    capsys.readouterr()
    assert main(["import", str(tmp_path / "theirs"), "--model", model]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said
    assert not (home() / "store.sqlite").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init_lora_weights": "pissa"}, "changes the base weights (pissa)"),
        ({"init_lora_weights": "olora"}, "changes the base weights (olora)"),
        ({"alora_invocation_tokens": [5]}, "aLoRA"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "repeats layers"),
    ],
)
def test_what_would_answer_otherwise_than_in_peft_is_refused(settings, words, tmp_path, capsys):
    made_elsewhere(tmp_path / "theirs", exclude_modules=["classifier.dense"])
    put(tmp_path / "theirs", **settings)
    capsys.readouterr()
    assert main(["import", str(tmp_path / "theirs"), "--model", "tiny-text"]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said


def test_a_folder_without_a_base_model_asks_for_it(tmp_path, capsys):
    made_elsewhere(tmp_path / "theirs", exclude_modules=["classifier.dense"])
    put(tmp_path / "theirs", base_model_name_or_path=None)
    assert main(["import", str(tmp_path / "theirs")]) == 2
    assert "--model" in capsys.readouterr().err
