"""The command line: its JSON, its exit statuses, its one sentence for a bad value."""

from __future__ import annotations

import json

import pytest

from peft_core.cli import main
from peft_core.records import InputError

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
    (["--lock", "weights"], "lock"),
    (["--lock", "rank", "--lock-to", "bitfit"], "lock_to"),
    (["--lock-to", "lora"], "lock_to"),
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


# --- data and presets ---

COLA = "glue/cola"
CAPABOOST, PFEIFFER = (
    "capaboost/roberta-base/capaboost_lora:d=2,rank=32",
    "capaboost/roberta-base/capaboost_pfeiffer:d=2,bottleneck=64",
)
RM_LORA = "rm_lora/deberta-v3-base/lora:rank=4"


def spec_of(*arguments: str):
    from peft_core.cli import build_parser
    from peft_core.commands.compare import read_spec

    return read_spec(build_parser().parse_args(["compare", *arguments]))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [
        f"{number},film {number} was {'good' if number % 2 else 'bad'} {'very ' * (number % 7)},{number % 2}"
        for number in range(60)
    ]
    path.write_text("\n".join(["2024,review,liked", *rows]))
    return str(path)


def test_preview_shows_guesses_rows_and_token_lengths(table, capsys):
    assert main(["preview", "--task", table, "--model", "tiny-text", "--max-length", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["roles"] == {"text": "review", "label": "liked"} and set(found["guessed"]) == {"kind", "text", "label"}
    assert found["rows"] == 60 and found["labels"] == {"0": 30, "1": 30} and len(found["examples"]) == 5
    tokens = found["tokens"]
    assert tokens["sampled"] == tokens["rows"] == 48 and tokens["limit"] == 16
    assert 0 < tokens["cut"] == tokens["cut_rows"] < 48 and tokens["longest"] > 16
    assert main(["preview", "--task", table]) == 0
    assert "review" in capsys.readouterr().out


def test_token_lengths_are_those_that_training_makes(table):
    from peft_core.backbones import load_backbone
    from peft_core.records import ComparisonSpec, MethodSpec, TrainingConfig
    from peft_core.training.data import load_data
    from peft_core.training.preview import token_lengths

    backbone = load_backbone("tiny-text", outputs=2, problem="classification")
    for limit in (None, 8):
        training = TrainingConfig(max_length=limit, batch_size=4)
        spec = ComparisonSpec(task=table, methods=(MethodSpec(id="lora"),), training=training)
        trained = load_data(spec, backbone)[0].train.lengths()
        found = token_lengths("tiny-text", table, {}, limit)
        if limit is None:
            assert found.longest == max(trained) and found.mean == sum(trained) / len(trained)
            assert found.cut == 0
        else:
            assert found.cut <= trained.count(limit) and max(trained) == limit == found.limit


def test_a_column_whose_name_is_a_number_can_be_named(table, capsys):
    assert main(["preview", "--task", table, "--task-option", "text=2024", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["roles"]["text"] == "2024"


@pytest.mark.parametrize(
    "arguments, field",
    [
        (["--task", "absent.csv"], "task"),
        (["--task", "{table}", "--task-option", "text=absent"], "task_options.text"),
        (["--task", "{table}", "--task-option", "text"], "task-option"),
        (["--task", "{table}", "--model", "tiny-text", "--task-option", "nothing=1"], "task_options.nothing"),
    ],
)
def test_a_look_at_what_cannot_be_trained_on_says_why(arguments, field, table, capsys):
    assert main(["preview", *[text.format(table=table) for text in arguments], "--json"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(field)


def test_a_model_that_cannot_be_asked_does_not_hide_the_rows(table, capsys):
    for model in ("roberta-base", "tiny-vision", "nothing"):
        assert main(["preview", "--task", table, "--model", model, "--json"]) == 0
        tokens = json.loads(capsys.readouterr().out)["tokens"]
        assert set(tokens) == {"said"} and tokens["said"].startswith(f"model is '{model}'")


def test_presets_are_listed_with_their_sources(capsys):
    assert main(["presets", "--task", COLA, "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed[CAPABOOST]["training"]["learning_rate"] == 5e-4
    assert all(set(entry["training"]) <= set(entry["sources"]) for entry in listed.values())
    assert main(["presets", "--task", COLA]) == 0
    assert "Table 9" in capsys.readouterr().out
    assert main(["presets", "--task", "acceptability", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["presets", "--task", "nothing"]) == 2


def test_a_preset_fills_in_what_is_not_given():
    spec = spec_of("--task", COLA, "--preset", CAPABOOST)
    assert (spec.model, spec.task_options["protocol"]) == ("roberta-base", "propetl")
    assert [method.id for method in spec.methods] == ["capaboost_lora"]
    assert (spec.training.epochs, spec.training.batch_size, spec.training.weight_decay) == (40, 128, 0.1)


def test_what_is_given_wins_over_a_preset():
    given = ["--model", "tiny-text", "--steps", "20", "--batch-size", "8", "--task-option", "protocol=default"]
    spec = spec_of("--task", COLA, "--preset", CAPABOOST, "--method", "head", *given)
    assert (spec.model, spec.task_options["protocol"]) == ("tiny-text", "default")
    assert (spec.training.steps, spec.training.epochs, spec.training.batch_size) == (20, None, 8)
    assert [method.id for method in spec.methods] == ["head", "capaboost_lora"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([COLA, CAPABOOST, PFEIFFER], ("training.epochs", "40", "20")),
        ([COLA, CAPABOOST, RM_LORA], ("training.batch_size", "128", "32")),
        ([COLA, "nothing"], ("preset", CAPABOOST)),
        (["acceptability", CAPABOOST], ("preset", "'acceptability'")),
    ],
)
def test_presets_that_disagree_are_refused(arguments, words, capsys):
    task, *names = arguments
    assert main(["compare", "--task", task, *[text for name in names for text in ("--preset", name)]]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in words)


def test_presets_agree_once_the_rest_is_given():
    spec = spec_of(
        "--task", COLA, "--preset", CAPABOOST, "--preset", PFEIFFER, "--epochs", "1", "--learning-rate", "1e-3"
    )
    assert [method.id for method in spec.methods] == ["capaboost_lora", "capaboost_pfeiffer"]


LOCKED = ["--method", "lora:rank=4", "--method", "capaboost_lora"]


def test_differences_are_to_the_method_that_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "home"))
    methods = ("head", "lora:rank=2", "lora:rank=4")
    short = ["--steps", "1", "--batch-size", "4", "--train-rows", "4", "--eval-rows", "20", "--seeds", "1"]
    given = [word for method in methods for word in ("--method", method)]
    arguments = ["compare", *given, *short, "--device", "cpu", "--out", str(tmp_path), "--json"]
    assert main([*arguments, "--reference", "lora:rank=4", "--plan", "lockstep"]) == 0
    assert "in lockstep with" in capsys.readouterr().err.replace("\n", " ")
    assert json.loads((tmp_path / "results.json").read_text())["plan"]["execution"] == "lockstep"
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    assert [row["versus"] and row["versus"]["reference"] for row in summary] == ["lora:rank=4", "lora:rank=4", None]
    assert "Difference to lora:rank=4" not in (tmp_path / "report.html").read_text(), "one seed has no t interval"
    assert main([*arguments, "--reference", "lora:rank=8"]) == 2
    assert "reference is 'lora:rank=8'" in capsys.readouterr().err


def test_a_lock_in_a_file_is_the_same_as_in_the_options(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("methods: ['lora:rank=4', capaboost_lora]\nlock: parameters\n", encoding="utf-8")
    given = spec_of(*LOCKED, "--lock", "parameters")
    assert given.methods[1].options == {"rank": 5} and given.lock.asked[1].options == {}
    assert spec_of(str(file)).methods == given.methods and spec_of(str(file)).lock == given.lock


def test_a_frozen_config_runs_again_as_it_ran(tmp_path):
    given = spec_of(*LOCKED, "--lock", "rank", "--lock-to", "capaboost_lora")
    file = tmp_path / "frozen.yaml"
    file.write_text(given.model_dump_json(), encoding="utf-8")
    assert spec_of(str(file)) == given
    for other in (["--method", "lora"], ["--lock", "flops"]):
        with pytest.raises(InputError, match="belongs to the methods of the file"):
            spec_of(str(file), *other)
