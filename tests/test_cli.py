"""The command line: its JSON, its exit statuses, its one sentence for a bad value."""

from __future__ import annotations

import json

import pytest

from peft_core.cli import main

BAD = [
    (["--method", "lora:rank=0"], "lora.rank"),
    (["--method", "lora:rank=200"], "lora.rank"),
    (["--method", "capaboost_lora:sparsity=-0.5"], "capaboost_lora.sparsity"),
    (["--method", "capaboost_lora:sparsity=1"], "capaboost_lora.sparsity"),
    (["--method", "capaboost_lora:sparsity=1.5"], "capaboost_lora.sparsity"),
    (["--method", "capaboost_lora:d=0"], "capaboost_lora.d"),
    (["--method", "lora:depth=3"], "lora.depth"),
    (["--method", "nothing"], "method"),
    (["--learning-rate", "0"], "training.learning_rate"),
    (["--learning-rate", "-1"], "training.learning_rate"),
    (["--learning-rate", "nan"], "training.learning_rate"),
    (["--learning-rate", "1e400"], "training.learning_rate"),
    (["--batch-size", "0"], "training.batch_size"),
    (["--batch-size", "33", "--train-rows", "32"], "training.batch_size"),
    (["--epochs", "1e9"], "training.epochs"),
    (["--steps", "0"], "training.steps"),
    (["--seed-list", str(2**64)], "seeds"),
    (["--seed-list", "1,1"], "seeds"),
    (["--seeds", "0"], "seeds"),
    (["--max-length", "100000"], "training.max_length"),
    (["--train-rows", "99999999"], "train_rows"),
    (["--task", "digits"], "task"),
    (["--task", "nothing"], "task"),
    (["--model", "nothing"], "model"),
    (["--model", "roberta-base"], "model"),
    (["--task-option", "spectrum=flat"], "spectrum"),
    (["absent.yaml"], "spec"),
]


@pytest.mark.parametrize(
    ("arguments", "field"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_bad_value_is_one_sentence_and_status_2(arguments, field, capsys, tmp_path):
    assert main(["compare", *arguments, "--json", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert field in said.err.split(" is ")[0]
    assert not (tmp_path / "home").exists(), "nothing may be started or stored"


@pytest.mark.parametrize("arguments", [["compare", "--depth", "3"], ["nothing"], [], ["bench", "--what", "nothing"]])
def test_bad_arguments_are_one_sentence_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("methods", {"id", "title", "family", "source", "boosts", "mergeable", "config"}),
        ("models", {"id", "architecture", "parameters", "origin", "available", "license"}),
        (
            "tasks",
            {"id", "kind", "metric", "labels", "origin", "available", "train_rows", "eval_rows", "protocol"},
        ),
    ],
)
def test_lists_have_their_keys(command, keys, capsys):
    assert main([command, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed and all(set(entry) == keys for entry in listed)
    assert main([command]) == 0
    assert listed[0]["id"] in capsys.readouterr().out


def test_every_option_of_a_method_is_described(capsys):
    main(["methods", "--json"])
    for method in json.loads(capsys.readouterr().out):
        for entry in method["config"]:
            assert set(entry) == {"name", "type", "default", "min", "max", "choices", "help"}
            assert entry["help"]


def test_budget_prints_a_list(capsys):
    assert main(["budget", "--model", "gpt2", "--method", "lora:rank=2", "--method", "bitfit", "--json"]) == 0
    lora, bitfit = json.loads(capsys.readouterr().out)
    assert lora["trainable"] == 12 * 2 * 2 * (768 + 768) and bitfit["rank_bound"] is None


def test_the_store_is_empty_at_first_and_names_unknown_ids(capsys):
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    for command in ("runs", "cancel", "resume", "delete"):
        assert main([command, "nothing"]) == 2
