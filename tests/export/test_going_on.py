"""Training that goes on from a finished run: what it begins with, what it says of it, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest

from peft_core.cli import main
from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunSpec, RunState, TrainingConfig
from peft_core.report import report_html, results_document
from peft_core.runs import Supervisor, stored_view
from peft_core.runs.begun import keep_starts
from peft_core.training.begun import Starts
from tests.export.conftest import METHODS
from tests.export.test_import import imported, made_elsewhere

LORA = "lora:rank=8"


def going_on(home, *methods: str, **asked):
    """The view of a comparison that has ended."""
    steps = asked.pop("steps", 2)
    spec = ComparisonSpec(
        **{
            "methods": tuple(map(MethodSpec.parse, methods)),
            "seeds": (0,),
            "train_rows": 64,
            "eval_rows": 32,
            "training": TrainingConfig(steps=steps, eval_every=1),
            "plan": "apart",
        }
        | asked
    )
    with Supervisor(home, executor="thread") as supervisor:
        name = supervisor.submit(spec)
        supervisor.wait(name)
        return supervisor.view(name)


def first_evaluation(view, run):
    return next(event for event in view.events if event["event"] == "eval" and event["run"] == run)


def test_runs_begin_where_others_ended_and_say_so(store):
    sources = {label: store.runs[label, 0] for label in METHODS}
    before = {row.run: row for row in stored_view(store.id).runs}
    files = {path: path.read_bytes() for path in (store.home / "comparisons" / store.id).rglob("adapter/*")}
    asked = [f"{label.partition(':')[0]}:from={run}" for label, run in sources.items()]
    view = going_on(store.home, *asked, LORA)
    assert [row.state for row in view.runs] == [RunState.FINISHED] * 5, [row.error for row in view.runs]
    for row, (label, source) in zip(view.runs, sources.items(), strict=False):
        found, ended = first_evaluation(view, row.run), before[source].result
        assert found["scores"] == ended.score and found["loss"] == pytest.approx(ended.eval_loss, abs=1e-6), label
        assert row.config == before[source].config and f"from={source}" in row.label
        assert row.result.begun_from == f"{source}, head included" and row.result.eval_loss != ended.eval_loss
    assert view.runs[-1].result.begun_from is None
    assert all(path.read_bytes() == content for path, content in files.items()), "the first run is as it was"
    runs = results_document(view)["runs"]
    assert [bool(run["begun_from"]) for run in runs] == [True] * 4 + [False]
    assert f"lora:rank=8,from={sources[LORA]} began with what the run {sources[LORA]}" in report_html(view)


def test_the_command_takes_model_task_and_seed_from_the_run(store, tmp_path, capsys):
    run = store.runs["capaboost_lora:rank=8", 1]
    assert main(["compare", "--from", run, "--steps", "1", "--method", LORA, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    asked = found["comparison"]
    assert asked["seeds"] == [1] and (asked["train_rows"], asked["eval_rows"]) == (64, 32)
    assert [run["begun_from"] for run in found["runs"]] == [f"{run}, head included", None]
    capsys.readouterr()
    continued = found["runs"][0]["run"]
    assert main(["export", continued, "--format", "native", "--to", str(tmp_path / "native")]) == 0
    assert f"began with what the run {run}" in (tmp_path / "native" / "README.md").read_text()
    assert main(["budget", "--model", "tiny-text", "--method", f"lora:from={store.runs[LORA, 0]}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["config"]["rank"] == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "nothing"], "from is 'nothing'"),
        (["--from", "{other}-77"], "must be the id of a finished run"),
        (["--method", "lora:from=aaaaaaaa-0", "--seeds", "1"], "lora.from is 'aaaaaaaa-0'"),
        (["--method", "lora:from=3"], "lora.from is 3"),
        (["--method", "capaboost_lora:from={lora}", "--seeds", "1"], "it is a run of lora"),
        (["--method", "lora:rank=4,from={lora}", "--seeds", "1"], "lora.rank is 4; it must be 8"),
        (["--from", "{lora}", "--seeds", "2"], "seeds is '0, 1'; it must be 0 alone"),
        (["--from", "{lora}", "--model", "tiny-decoder"], "model is 'tiny-decoder'; it must be tiny-text"),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_sentence(store, capsys, arguments, words):
    given = [part.format(lora=store.runs[LORA, 0], other=store.id) for part in arguments]
    assert main(["compare", "--steps", "1", *given]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == "", said.err


def test_a_sweep_begins_with_nothing_learned(tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(
        "tasks: [acceptability]\nlearning_rates: [0.001]\nmethods: ['lora:from=aaaaaaaa-0']\n"
    )
    assert main(["sweep", str(tmp_path / "grid.yaml")]) == 2
    assert "begins with nothing learned" in capsys.readouterr().err


def test_a_method_whose_stored_form_lacks_what_trains_is_refused(store):
    done = going_on(store.home, "propetl_lora:rank=4", steps=1)
    with pytest.raises(InputError, match=r"propetl_lora\.from .* without their scores"):
        going_on(store.home, f"propetl_lora:from={done.runs[0].run}")


def test_another_task_has_a_new_head_and_the_learned_update(store):
    view = going_on(store.home, f"lora:from={store.runs[LORA, 0]}", task="entailment", steps=1)
    assert view.runs[0].result.begun_from == f"{store.runs[LORA, 0]}, with a new head"
    first = next(event for event in view.events if event["event"] == "rank")
    assert min(layer["numerical"] for layer in first["layers"]) == 8, "a fresh one would have rank 0"


def test_what_it_begins_with_outlives_the_run_and_is_of_the_same_weights(store):
    run = store.runs[LORA, 0]
    method = MethodSpec.parse(f"lora:rank=8,from={run}")
    spec = ComparisonSpec(methods=(method,), seeds=(0,))
    kept = store.home / "comparisons" / "bbbbbbbb"
    keep_starts(store.home, "bbbbbbbb", spec, lambda _: stored_view(store.id))
    shutil.rmtree(store.home / "comparisons" / store.id)
    one = RunSpec(run="bbbbbbbb-0", comparison=spec, method=method, label=str(method), seed=0)
    from peft_core.backbones import load_backbone
    from peft_core.training.data import load_data
    from tests.methods.test_contract import attach

    backbone = load_backbone("tiny-text", outputs=2, problem="classification")
    data = load_data(spec.model_copy(update={"train_rows": 64, "eval_rows": 32}), backbone)
    attached = attach(backbone, "lora", seed=0, rank=8)
    recorded = json.loads((kept / "starts" / run / "model.json").read_text())
    assert Starts(kept, recorded).load(one, attached, data) == f"{run}, head included"
    assert attached.updates()[0].left.abs().max() > 0
    with pytest.raises(InputError, match="must be of the weights"):
        Starts(kept, recorded | {"weights_sha256": "0" * 64}).load(one, attached, data)
    shutil.rmtree(kept)
    with pytest.raises(InputError, match="not on this disk any more"):
        Starts(kept, recorded).load(one, attached, data)


def test_an_adapter_that_is_gone_stores_nothing(store):
    run = store.runs[LORA, 0]
    shutil.rmtree(store.home / "comparisons" / store.id / run / "adapter")
    with Supervisor(store.home, executor="thread") as supervisor:
        known = len(supervisor.comparisons())
        spec = ComparisonSpec(methods=(MethodSpec.parse(f"lora:from={run}"),), seeds=(0,))
        with pytest.raises(InputError, match="not on this disk any more"):
            supervisor.submit(spec)
        assert len(supervisor.comparisons()) == known


# --- imported adapters ---


def test_an_imported_adapter_is_scored_as_it_was(store, tmp_path, capsys):
    run = store.runs["capaboost_lora:rank=8", 1]
    result = next(row.result for row in stored_view(store.id).runs if row.run == run)
    for kind in ("peft", "native"):
        assert main(["export", run, "--format", kind, "--to", str(tmp_path / kind)]) == 0
        capsys.readouterr()
        again = imported(capsys, tmp_path / kind, "--task", "acceptability", "--eval-rows", "32")
        view = stored_view(again.rpartition("-")[0])
        assert view.runs[0].result.score == result.score and view.runs[0].result.baseline_score is not None
        assert view.runs[0].result.eval_loss == pytest.approx(result.eval_loss, abs=1e-5)
        assert first_evaluation(view, again)["scores"] == result.score
        assert "scored here on 32 evaluation rows" in view.runs[0].result.split
        assert "last step" not in view.runs[0].result.split
        assert view.comparison.environment["data"]["acceptability"]["rows_sha256"]
        assert "imported" in json.dumps(results_document(view)["environment"])


def test_a_foreign_adapter_is_scored_and_gone_on_with(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "store"))
    made_elsewhere(tmp_path / "theirs", exclude_modules=["classifier.dense"])
    asked = ("--model", "tiny-text")
    plain = imported(capsys, tmp_path / "theirs", *asked)
    assert main(["compare", "--from", plain, "--steps", "1"]) == 2
    assert "name a task with --task" in capsys.readouterr().err
    scored = imported(capsys, tmp_path / "theirs", *asked, "--task", "entailment", "--eval-rows", "64")
    row = stored_view(scored.rpartition("-")[0]).runs[0]
    assert "taken in the task's order" in row.result.split and row.result.score["accuracy"] is not None
    view = going_on(tmp_path / "store", f"lora:from={scored}", task="entailment", eval_rows=64, steps=1)
    found = results_document(view)["runs"][0]
    assert found["begun_from"] == f"{scored}, head included"
    assert found["curve"][0] == [0, row.result.score["accuracy"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "acceptability"], "it asks for 2 classes and the adapter's head gives 3 classes"),
        (["--task", "similarity"], "it asks for a number"),
        (["--task", "nothing-known"], "task is 'nothing-known'"),
        (["--eval-rows", "3"], "eval_rows is '3'; it takes a --task"),
        (["--task", "entailment", "--eval-rows", "0"], "eval_rows is 0"),
    ],
)
def test_a_task_that_it_does_not_answer_is_one_sentence(tmp_path, capsys, arguments, words):
    made_elsewhere(tmp_path / "theirs", exclude_modules=["classifier.dense"])
    capsys.readouterr()
    assert main(["import", str(tmp_path / "theirs"), "--model", "tiny-text", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said


def test_the_card_of_an_imported_adapter_claims_no_training_here(tmp_path, capsys):
    made_elsewhere(tmp_path / "theirs", exclude_modules=["classifier.dense"])
    run = imported(capsys, tmp_path / "theirs", "--model", "tiny-text")
    assert main(["export", run, "--format", "peft", "--to", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "read it from `theirs`" in card and "Trained with" not in card and '"training"' not in card


# --- models in a folder of the user's ---


def test_a_model_in_a_folder_is_asked_for_by_its_name(tmp_path, capsys, monkeypatch):
    from peft_core.backbones._catalog import ASSETS

    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "store"))
    model, moved = tmp_path / "mine", tmp_path / "moved"
    shutil.copytree(ASSETS / "tiny-text", model)
    view = going_on(tmp_path / "store", "lora:rank=2", model=str(model), steps=1)
    run = view.runs[0].run
    for kind in ("native", "peft"):
        assert main(["export", run, "--format", kind, "--to", str(tmp_path / kind)]) == 0
    model.rename(moved)
    capsys.readouterr()
    said = "say with --model where it is now"
    for command in (["export", run, "--format", "native", "--to", str(tmp_path / "again")], ["import"], ["inspect"]):
        for folder in (tmp_path / "native", tmp_path / "peft") if len(command) == 1 else (None,):
            given = [*command, *([str(folder)] if folder else [])]
            if command == ["inspect"] and folder == tmp_path / "peft":
                continue  # needs no model
            assert main(given) == 2
            error = capsys.readouterr().err
            assert said in error and str(tmp_path) not in error.partition(said)[0].replace(str(model), ""), error
            assert main([*given, "--model", str(moved)]) == 0
            capsys.readouterr()
