"""A sweep at work: what it trains, what it keeps, and what its file holds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from peft_core.cli import main
from peft_core.commands.sweep import read_sweep
from peft_core.methods import list_methods
from peft_core.records import Absence, InputError, SweepSpec, Trial, checked
from peft_core.report.choice import choices
from peft_core.runs.executors import ThreadExecutor
from peft_core.runs.ledger import Ledger
from peft_core.runs.process import ProcessExecutor
from peft_core.runs.sweep import grid, work
from peft_core.tasks import get_task
from tests.runs import sweep_trainer
from tests.runs.support import until

TRAINER = "tests.runs.sweep_trainer:train"
VALUES = {
    "tasks": ["acceptability", "similarity"],
    "methods": ["lora", "bitfit"],
    "learning_rates": [0.001, 0.003, 0.01],
    "seeds": [0, 1],
    "train_rows": 64,
    "validation_rows": 40,
    "training": {"steps": 2, "batch_size": 16},
}


@pytest.fixture(autouse=True)
def _trained():
    sweep_trainer.TRAINED.clear()


def swept(tmp_path, *, told=lambda trial: None, retry=False, executor=None, jobs=1, **fields):
    """One call of a sweep: (its file's document, why workers ended early)."""
    spec = checked(SweepSpec, VALUES | fields)
    cells, absences = grid(spec)

    def document(trials):
        absent = [absence.model_dump() for absence in absences]
        return {"spec": spec.model_dump(mode="json"), "absent": absent, **choices(spec, trials, absences)}

    ledger = Ledger(tmp_path / "sweep.json", [cell.key for cell in cells], document)
    if retry:
        ledger.forget_failed()
    reasons = work(cells, ledger, executor or ThreadExecutor(TRAINER), jobs, tmp_path, told)
    return on_disk(tmp_path), reasons


def on_disk(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no strict JSON")

    return json.loads((tmp_path / "sweep.json").read_text(), parse_constant=refuse)


def test_every_method_is_tried_as_often_on_every_task(tmp_path):
    found, reasons = swept(tmp_path, jobs=2)
    assert not reasons and len(found["trials"]) == len(sweep_trainer.TRAINED) == 2 * 2 * 3 * 2
    tried = [(trial["task"], trial["method"], trial["learning_rate"], trial["seed"]) for trial in found["trials"]]
    assert len(set(tried)) == len(tried)
    assert {row["trials"] for row in (*found["choices"], *found["overall"])} == {3}
    rates = {row["method"]: row["learning_rate"] for row in found["overall"]}
    assert rates == sweep_trainer.PEAKS
    assert found["choices"][0]["score"] == pytest.approx(0.895)
    assert {found["environments"][trial["environment"]]["task"] for trial in found["trials"]} == {
        "acceptability",
        "similarity",
    }


def test_a_choice_can_be_computed_again_from_the_file(tmp_path):
    found, _ = swept(tmp_path, tasks=["acceptability", {"task": "digits", "model": "tiny-vision"}])
    again = choices(
        SweepSpec.model_validate(found["spec"]),
        [Trial.model_validate(trial) for trial in found["trials"]],
        [Absence.model_validate(absence) for absence in found["absent"]],
    )
    assert json.loads(json.dumps(again)) == {name: found[name] for name in again}


def test_a_method_without_a_place_is_absent_there_alone():
    tasks = ["acceptability", {"task": "digits", "model": "tiny-vision"}]
    cells, (absence,) = grid(checked(SweepSpec, VALUES | {"tasks": tasks, "methods": ["lora", "vpt_deep"]}))
    assert (absence.task, absence.method) == ("acceptability", "vpt_deep") and "class token" in absence.reason
    assert {(cell.spec.task, cell.method) for cell in cells} == {
        ("acceptability", "lora"),
        ("digits", "lora"),
        ("digits", "vpt_deep"),
    }
    with pytest.raises(InputError, match="no task's model"):
        grid(checked(SweepSpec, VALUES | {"methods": ["vpt_deep"]}))


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path):
    seen = []

    def told(trial):
        seen.append(trial)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, told=told)
    kept = on_disk(tmp_path)
    assert len(kept["trials"]) == 4 and kept["overall"][0]["learning_rate"] is None
    sweep_trainer.TRAINED.clear()
    found, _ = swept(tmp_path)
    assert len(found["trials"]) == 24 and len(sweep_trainer.TRAINED) == 20
    assert [trial for trial in found["trials"] if trial in kept["trials"]] == kept["trials"]
    sweep_trainer.TRAINED.clear()
    assert swept(tmp_path)[0] == found and not sweep_trainer.TRAINED


@pytest.mark.parametrize(
    "changed",
    [{"training": {"steps": 3, "batch_size": 16}}, {"train_rows": 80}, {"validation_rows": 50}, {"data_seed": 1}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_changed_setting_is_another_cell(tmp_path, changed):
    before, _ = swept(tmp_path)
    after, _ = swept(tmp_path, **changed)
    assert len(sweep_trainer.TRAINED) == 48 and len(after["trials"]) == 24
    assert sorted(after["set_aside"], key=str) == sorted(before["trials"], key=str)
    back, _ = swept(tmp_path)
    assert len(sweep_trainer.TRAINED) == 48 and back["trials"] == before["trials"]


def test_a_further_rate_leaves_the_finished_trials(tmp_path):
    swept(tmp_path)
    found, _ = swept(tmp_path, learning_rates=[0.001, 0.003, 0.01, 0.03])
    assert len(sweep_trainer.TRAINED) == 24 + 8 and {row["trials"] for row in found["overall"]} == {4}


def test_a_failed_trial_counts_and_is_trained_again_on_request_alone(tmp_path):
    rates = [0.001, 0.003, 1.0]
    found, reasons = swept(tmp_path, learning_rates=rates)
    failed = [trial for trial in found["trials"] if trial["error"]]
    assert not reasons and len(failed) == 8 and all(trial["score"] is None for trial in failed)
    assert all((row["trials"], row["failed"]) == (3, 2) for row in found["choices"])
    assert all(row["learning_rate"] < 1 for row in (*found["choices"], *found["overall"]))
    sweep_trainer.TRAINED.clear()
    swept(tmp_path, learning_rates=rates)
    assert not sweep_trainer.TRAINED
    swept(tmp_path, learning_rates=rates, retry=True)
    assert len(sweep_trainer.TRAINED) == 8


def test_a_worker_that_cannot_train_leaves_its_cells_for_later(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_CRASH", "1")
    spec = checked(SweepSpec, VALUES)
    cells, _ = grid(spec)
    ledger = Ledger(tmp_path / "sweep.json", [cell.key for cell in cells], lambda trials: {})
    reasons = work(cells, ledger, ThreadExecutor(TRAINER), 2, tmp_path, lambda trial: None)
    assert reasons == ["OSError: the weights cannot be read"] and not ledger.trials


def test_another_file_is_not_written_over(tmp_path):
    (tmp_path / "sweep.json").write_text('{"runs": []}')
    with pytest.raises(InputError, match="one that a sweep has written"):
        swept(tmp_path)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"methods": ["lora", {"method": "bitfit", "learning_rates": [0.01]}]}, "methods"),
        ({"methods": ["lora", {"method": "capaboost_lora", "options": {"d": [2, 4]}}]}, "methods"),
        ({"methods": ["lora:learning_rate=0.1"]}, "methods"),
        ({"methods": [{"method": "lora", "centre": 0.01}]}, "methods"),
        ({"methods": [{"method": "lora", "centre": 0.01, "learning_rates": [0.1]}]}, "lora.centre"),
        ({"methods": ["lora", "lora"]}, "methods"),
        ({"methods": ["nothing"]}, "method"),
        ({"methods": ["lora:depth=3"]}, "lora.depth"),
        ({"methods": ["lora:rank=200"]}, "lora.rank"),
        ({"methods": []}, "methods"),
        ({"learning_rates": [0.1, 0.1]}, "lora.learning_rates"),
        ({"learning_rates": [0.1, 11]}, "learning_rates.1"),
        ({"learning_rates": None}, "methods"),
        ({"training": {"learning_rate": 0.1}}, "training.learning_rate"),
        ({"tasks": ["nothing"]}, "task"),
        ({"tasks": ["acceptability", "acceptability"]}, "tasks"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"validation_rows": 25_000}, "validation_rows"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_bad_sweep_is_one_sentence_and_status_2(tmp_path, capsys, fields, field):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(VALUES | fields))
    assert main(["sweep", str(path), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.split(" is ")[0] == field
    assert not (tmp_path / "spec.json").exists()


def test_rates_of_a_span_are_factors_around_each_centre():
    span = [{"method": "lora", "centre": 3e-3}, {"method": "full", "centre": 1e-3}]
    spec = checked(SweepSpec, VALUES | {"methods": span, "learning_rates": None, "span": [0.1, 0.3, 1, 3, 10]})
    assert spec.rates(spec.methods[0]) == (3e-4, 9e-4, 3e-3, 9e-3, 3e-2)
    assert spec.rates(spec.methods[1]) == (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def test_the_shipped_grid_holds_every_method_wherever_it_has_a_place():
    spec = read_sweep(Path(__file__).parents[2] / "scripts" / "sweeps" / "learning_rates.yaml")
    _, absences = grid(spec)
    methods = {method.id: method for method in list_methods()}
    assert {str(entry.method) for entry in spec.methods} == set(methods)
    assert all(len(spec.rates(entry)) == 5 for entry in spec.methods)
    for absence in absences:
        modality = get_task(absence.task).info.modality
        assert modality not in methods[absence.method].modalities, absence


def test_the_command_trains_in_processes_and_shows_its_choices(tmp_path, capsys):
    path, out = tmp_path / "spec.yaml", tmp_path / "made" / "found.json"
    small = {
        "tasks": ["acceptability"],
        "methods": ["lora:rank=2", "head"],
        "learning_rates": [0.01, 9.0],
        "seeds": [0],
    }
    path.write_text(json.dumps(VALUES | small))
    assert main(["sweep", str(path), "--out", str(out), "--json", "--jobs", "1"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found == json.loads(out.read_text()) and found["complete"] and len(found["trials"]) == 4
    assert all(math.isfinite(trial["score"]) for trial in found["trials"] if trial["error"] is None)
    rows = {"model": "tiny-text", "task": "acceptability", "data_seed": 0, "train_rows": 64, "validation_rows": 40}
    assert found["rows"] == [rows]
    assert found["environments"][0]["threads"] == 1 and found["trials"][0]["steps"] == 2
    assert sorted(file.name for file in out.parent.iterdir()) == ["found.json"]
    assert main(["sweep", str(path), "--out", str(out), "--executor", "thread"]) == 0
    assert "lora:rank=2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--jobs", "0"], 2), (["--jobs", "two"], 2), (["--out", "{folder}"], 2)]
)
def test_bad_options_are_refused(tmp_path, capsys, arguments, status):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(VALUES))
    assert main(["sweep", str(path), *[text.format(folder=tmp_path) for text in arguments]]) == status
    assert capsys.readouterr().err.count("\n") == 1


def test_a_refused_sweep_leaves_nothing_and_one_that_cannot_have_its_folder_says_so(tmp_path, monkeypatch, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(VALUES | {"tasks": ["acceptability"]}))
    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: None)
    assert main(["sweep", str(path), "--executor", "ray"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and list(tmp_path.iterdir()) == [path]
    (tmp_path / "spec.json.work").touch()
    assert main(["sweep", str(path)]) == 2
    assert "spec.json.work beside it must be a folder (File exists)" in capsys.readouterr().err


def test_what_a_worker_waits_for_is_told_once(tmp_path, monkeypatch, capsys):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(VALUES | STEPS))
    monkeypatch.setattr("peft_core.runs.sweep.TRAINER", "tests.runs.sweep_trainer:train_after_waiting")
    assert main(["sweep", str(path), "--executor", "thread"]) == 0
    assert capsys.readouterr().err.count("Worker 1 waits for room on the cluster (64 CPU).") == 1


def test_an_executor_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["sweep", "spec.yaml", "--executor", "slurm"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "slurm" in said and "process" in said and said.count("\n") == 1


def test_stopping_it_by_hand_ends_with_status_130(tmp_path, monkeypatch):
    from peft_core.commands import sweep

    def stopped(bar, trial):
        raise KeyboardInterrupt

    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(VALUES | {"tasks": ["acceptability"]}))
    monkeypatch.setattr(sweep._Bar, "told", stopped)
    monkeypatch.setattr("peft_core.runs.sweep.TRAINER", TRAINER)
    assert main(["sweep", str(path), "--executor", "thread"]) == 130
    assert len(json.loads((tmp_path / "spec.json").read_text())["trials"]) == 1
    assert not (tmp_path / "spec.json.lock").exists()


STEPS = {"tasks": ["acceptability"], "methods": ["lora"], "learning_rates": [0.001, 0.003], "seeds": [0]}
IN_STEPS = "tests.runs.sweep_trainer:train_in_steps"


def begun(tmp_path):
    return [int(line) for line in (tmp_path / "begun").read_text().split()]


def test_a_cell_whose_worker_was_killed_goes_on_from_its_checkpoint(tmp_path):
    (tmp_path / "kill").touch()
    found, reasons = swept(tmp_path, executor=ProcessExecutor(tmp_path, IN_STEPS), **STEPS)
    assert not reasons and len(found["trials"]) == 2 and begun(tmp_path) == [0, 3, 0]
    assert not list((tmp_path / "cells").iterdir()) and not list(tmp_path.glob("job-*"))


def test_a_worker_without_a_sign_of_life_is_ended_and_its_cells_are_dealt_again(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.runs.sweep.BEAT_SECONDS", 4.0)
    (tmp_path / "freeze").touch()
    found, reasons = swept(tmp_path, executor=ProcessExecutor(tmp_path, IN_STEPS), **STEPS)
    assert not reasons and len(found["trials"]) == 2 and begun(tmp_path) == [0, 3, 0]


def test_a_cell_goes_on_from_its_checkpoint_where_the_sweep_itself_was_stopped(tmp_path):
    (tmp_path / "hold").touch()

    def told(trial):
        until(lambda: [kept.read_text() for kept in tmp_path.glob("cells/*/checkpoints/step")] == ["3"], 60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, told=told, executor=ProcessExecutor(tmp_path, IN_STEPS), **STEPS)
    (tmp_path / "hold").unlink()
    found, reasons = swept(tmp_path, executor=ProcessExecutor(tmp_path, IN_STEPS), **STEPS)
    assert not reasons and len(found["trials"]) == 2 and begun(tmp_path) == [0, 0, 3]


def test_no_process_is_left_when_a_sweep_is_stopped(tmp_path):
    executor = ProcessExecutor(tmp_path, TRAINER)

    def told(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, told=told, executor=executor, jobs=2)
    until(lambda: not executor.processes())
