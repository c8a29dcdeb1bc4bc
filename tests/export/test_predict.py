"""`predict`: what a stored run answers is what its scores were computed from, whatever it answers with."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from peft_core.cli import main
from peft_core.commands.predict import _stream
from peft_core.export.finished import FinishedRun
from peft_core.export.predicting import Predictors
from peft_core.metrics.texts import text_scores
from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunState, TrainingConfig
from peft_core.runs import stored_view
from peft_core.runs.folders import comparison_folder
from peft_core.runs.reader import Reader
from peft_core.tasks import get_task
from peft_core.training.problems import Prediction
from tests.export.conftest import METHODS

ROWS = 24
MADE = {
    "acceptability": "tiny-text",
    "similarity": "tiny-text",
    "span_qa": "tiny-text",
    "digits": "tiny-vision",
    "translation": "tiny-seq2seq",
    "data_to_text": "tiny-decoder",
    "acceptability+similarity": "tiny-text",
}
"""Tasks and models: classes, a number, a part of a context, images, written text by two architectures, two heads."""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`home`: a store with a run of every kind. `ids`: comparison by task."""
    from peft_core.runs import Supervisor

    home, ids = tmp_path_factory.mktemp("predict") / "home", {}
    with Supervisor(home, executor="thread") as supervisor:
        for task, model in MADE.items():
            spec = ComparisonSpec(
                model=model,
                task=task,
                methods=(MethodSpec.parse("lora:rank=2"),),
                seeds=(0,),
                train_rows=48,
                eval_rows=ROWS,
                training=TrainingConfig(steps=3, batch_size=8, max_new_tokens=6 if task == "translation" else None),
                plan="apart",
            )
            ids[task] = supervisor.submit(spec)
        for name in ids.values():
            supervisor.wait(name)
            (row,) = supervisor.view(name).runs
            assert row.state == RunState.FINISHED, row.error
    return SimpleNamespace(home=home, ids=ids)


@pytest.fixture
def stored(made, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLAB_HOME", str(shutil.copytree(made.home, tmp_path / "store")))
    return made.ids


def asked(capsys, *words):
    assert main(["predict", *words]) == 0
    return capsys.readouterr().out


def score_of(comparison):
    return stored_view(comparison).runs[0].result.score


def lines_of(capsys, comparison, table):
    return [json.loads(line) for line in asked(capsys, comparison, "--file", str(table), "--json").splitlines()]


def written(columns, path):
    """The columns as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
    return path


def test_classes_have_the_accuracy_that_the_run_reported(stored, tmp_path, capsys):
    task = get_task("acceptability")
    rows = task.rows("eval", ROWS, 0, {})
    table = written({"more": range(ROWS), "text": rows.columns["text"]}, tmp_path / "rows.csv")
    lines = lines_of(capsys, stored["acceptability"], table)
    assert [line["row"] for line in lines] == list(range(2, ROWS + 2)), "the header is row 1"
    labels = task.info.labels
    right = [line["answer"] == labels[label] for line, label in zip(lines, rows.labels, strict=True)]
    assert np.mean(right) == pytest.approx(score_of(stored["acceptability"])["accuracy"])
    for line in lines:
        assert set(line["confidence"]) == set(labels) and sum(line["confidence"].values()) == pytest.approx(1)
        assert line["answer"] == max(line["confidence"], key=line["confidence"].get)
    text = rows.columns["text"][0]
    (single,) = json.loads(asked(capsys, stored["acceptability"] + "-0", "--text", text, "--json"))["predictions"]
    assert single["answer"] == lines[0]["answer"]
    assert single["confidence"] == pytest.approx(lines[0]["confidence"], abs=1e-5)
    shown = asked(capsys, stored["acceptability"], "--text", text)
    assert all(label in shown for label in labels)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "csv.gz", "parquet"])
def test_every_format_of_a_table_gives_the_same(stored, tmp_path, capsys, ending):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, path = ["a dog, small, sees the cat", "a dog see the cat"], tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        content = "text\n" + "".join(f'"{text}"\n' for text in texts)
        path.write_bytes(gzip.compress(content.encode()) if ending.endswith("gz") else content.encode())
    shown = asked(capsys, stored["acceptability"], "--file", str(path))
    table = list(csv.DictReader(io.StringIO(shown)))
    (first,) = json.loads(asked(capsys, stored["acceptability"], "--text", texts[0], "--json"))["predictions"]
    assert len(table) == 2 and table[0]["answer"] == first["answer"]
    assert float(table[0]["confidence"]) == pytest.approx(max(first["confidence"].values()), abs=1e-5)


def test_numbers_are_in_the_unit_of_the_task(stored, tmp_path, capsys):
    rows = get_task("similarity").rows("eval", ROWS, 0, {})
    lines = lines_of(capsys, stored["similarity"], written(rows.columns, tmp_path / "pairs.csv"))
    answers = np.array([line["answer"] for line in lines])
    reported = score_of(stored["similarity"])["pearson"]
    assert np.corrcoef(answers, rows.labels)[0, 1] == pytest.approx(reported, abs=1e-5)
    targets = get_task("similarity").rows("train", 48, 0, {}).labels
    assert abs(answers.mean() - targets.mean()) < 2 * targets.std(), "near the targets, not near 0 with deviation 1"


def test_answers_are_parts_of_their_contexts_with_the_reported_score(stored, tmp_path, capsys):
    rows = get_task("span_qa").rows("eval", ROWS, 0, {})
    asked_of = {name: rows.columns[name] for name in ("question", "context")}
    lines = lines_of(capsys, stored["span_qa"], written(asked_of, tmp_path / "questions.csv"))
    answers = [line["answer"] for line in lines]
    assert all(answer in context for answer, context in zip(answers, rows.columns["context"], strict=True))
    references = [tuple(text for text, _ in row) for row in rows.columns["answers"]]
    reported = score_of(stored["span_qa"])
    assert text_scores(tuple(reported), answers, references) == pytest.approx(reported)
    words = ("--question", asked_of["question"][3], "--context", asked_of["context"][3])
    (one,) = json.loads(asked(capsys, stored["span_qa"], *words, "--json"))["predictions"]
    assert one["answer"] == answers[3] and one["score"] == pytest.approx(lines[3]["score"], abs=1e-4)


@pytest.mark.parametrize("task", ["translation", "data_to_text"])
def test_written_text_has_the_reported_score(stored, tmp_path, capsys, task):
    rows = get_task(task).rows("eval", ROWS, 0, {})
    lines = lines_of(capsys, stored[task], written({"text": rows.columns["text"]}, tmp_path / "sources.csv"))
    reported = score_of(stored[task])
    answers = [line["answer"] for line in lines]
    assert text_scores(tuple(reported), answers, rows.columns["target"]) == pytest.approx(reported)


def test_a_source_longer_than_the_model_is_cut(stored, capsys):
    (one,) = json.loads(asked(capsys, stored["data_to_text"], "--text", "word " * 5000, "--json"))["predictions"]
    assert isinstance(one["answer"], str)


def test_images_have_the_reported_accuracy(stored, tmp_path, capsys):
    rows = get_task("digits").rows("eval", ROWS, 0, {})
    words = []
    for number, pixels in enumerate(rows.columns["image"]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        words += ["--image", str(tmp_path / f"{number}.png")]
    found = json.loads(asked(capsys, stored["digits"], *words, "--json"))["predictions"]
    labels = get_task("digits").info.labels
    right = [entry["answer"] == labels[label] for entry, label in zip(found, rows.labels, strict=True)]
    assert np.mean(right) == pytest.approx(score_of(stored["digits"])["accuracy"])


def test_each_task_of_a_run_answers_with_its_own_head(stored, capsys):
    run = stored["acceptability+similarity"]
    words = ("--text", "the cat sees a dog", "--json")
    (one,) = json.loads(asked(capsys, run, "--task", "acceptability", *words))["predictions"]
    (two,) = json.loads(asked(capsys, run, "--task", "similarity", "--text2", "a dog", *words))["predictions"]
    assert set(one["confidence"]) == {"acceptable", "unacceptable"} and isinstance(two["answer"], float)
    assert main(["predict", run, *words]) == 2
    assert "acceptability, similarity" in capsys.readouterr().err


WRONG = [
    ("acceptability", [], "input is"),
    ("acceptability", ["--text", "a", "--file", "b.csv"], "give one of"),
    ("acceptability", ["--text", " "], "must be a text that is not empty"),
    ("acceptability", ["--text", "a", "--text2", "b"], "trained on text"),
    ("acceptability", ["--text2", "b", "--question", "a"], "goes with --text"),
    ("acceptability", ["--question", "a", "--context", "b"], "trained on text"),
    ("acceptability", ["--file", "absent.csv"], "there is no such file"),
    ("acceptability", ["--file", "{folder}"], "there is no such file"),
    ("acceptability", ["--text", "a", "--task", "other"], "task is 'other'"),
    ("similarity", ["--text", "a"], "trained on text and text2"),
    ("span_qa", ["--question", "a"], "trained on question and context"),
    ("digits", ["--text", "a"], "trained on image"),
    ("digits", ["--image", "absent.png"], "it cannot be read"),
    ("digits", ["--image", "{folder}/no.png"], "no image of a known format"),
    ("digits", ["--file", "{folder}/wrong.csv"], "reads images"),
    ("acceptability", ["--file", "{folder}/wrong.csv"], "no column 'text'; its columns are sentence, label"),
    ("similarity", ["--file", "{folder}/empty.csv"], "row 3 has nothing in the column 'text2'"),
]


@pytest.mark.parametrize(("task", "words", "said"), WRONG, ids=lambda value: " ".join(value)[:40] if value else "")
def test_a_bad_input_is_one_sentence_and_status_2(stored, tmp_path, capsys, task, words, said):
    (tmp_path / "no.png").write_text("no image")
    (tmp_path / "wrong.csv").write_text("sentence,label\na,b\n")
    (tmp_path / "empty.csv").write_text("text,text2\na,b\na,\n")
    given = [word.replace("{folder}", str(tmp_path)) for word in words]
    assert main(["predict", stored[task], *given, "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and said in shown.err


def test_a_run_without_its_weights_or_of_another_state_is_refused(stored, tmp_path, capsys):
    run = stored["acceptability"]
    shutil.rmtree(tmp_path / "store" / "comparisons" / run / f"{run}-0" / "adapter")
    for given, said in (
        (run, "not on this disk any more"),
        ("aaaaaaaa", "no comparison"),
        (f"{run}-7", "must be a run"),
    ):
        assert main(["predict", given, "--text", "a"]) == 2
        assert said in capsys.readouterr().err


def test_an_exported_folder_that_is_imported_answers_the_same(stored, tmp_path, capsys):
    words = ("--text", "the cat sees a dog", "--text2", "a dog sees the cat", "--json")
    (before,) = json.loads(asked(capsys, stored["similarity"], *words))["predictions"]
    for kind in ("native", "peft"):
        to = tmp_path / kind
        assert main(["export", stored["similarity"], "--format", kind, "--to", str(to)]) == 0
        assert main(["import", str(to), "--model", "tiny-text", "--json"]) == 0
        run = json.loads(capsys.readouterr().out)["id"]
        (after,) = json.loads(asked(capsys, run, *words))["predictions"]
        assert after == pytest.approx(before, abs=1e-5), kind


def test_an_adapter_of_others_answers_by_the_numbers_of_its_classes(stored, tmp_path, capsys):
    words = ("--text", "the cat sees a dog", "--json")
    (before,) = json.loads(asked(capsys, stored["acceptability"], *words))["predictions"]
    to = tmp_path / "peft"
    assert main(["export", stored["acceptability"], "--format", "peft", "--to", str(to)]) == 0
    (to / "ranklab.json").unlink()
    assert main(["import", str(to), "--model", "tiny-text", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["id"]
    (after,) = json.loads(asked(capsys, run, *words))["predictions"]
    expected = [before["confidence"][label] for label in get_task("acceptability").info.labels]
    assert list(after["confidence"]) == ["0", "1"]
    assert list(after["confidence"].values()) == pytest.approx(expected, abs=1e-5)
    assert main(["predict", run, "--text", "a", "--text2", "b"]) == 0, "whether it takes pairs is not known"


def test_answers_that_are_not_finite_are_refused(stored, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    from peft_core.training.native import write_sums

    run = stored["acceptability"]
    file = tmp_path / "store" / "comparisons" / run / f"{run}-0" / "adapter" / "head.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, file)
    write_sums(file.parent)
    assert main(["predict", run, "--text", "a dog", "--json"]) == 2
    said = capsys.readouterr()
    assert "not finite" in said.err and said.out == ""


def finished(home, name):
    view = Reader(home / "store.sqlite").view(name)
    folder = comparison_folder(home, name)
    return [FinishedRun.of(view, row.run, folder / row.run / "adapter") for row in view.runs]


def test_runs_of_a_comparison_share_one_backbone_and_the_number_kept_is_bounded(comparison, made):
    runs, pair = finished(comparison.home, comparison.id), finished(made.home, made.ids["similarity"])
    predictors = Predictors(backbones=1, runs=3)
    asked = [{"text": "the cat sees a dog"}, {"text": "cat a the"}]
    together = predictors.answers(runs, asked)
    assert len(predictors) == 1 and len(together) == 2 * len(METHODS)
    for run, found in zip(runs, together, strict=True):
        (alone,) = Predictors().answers([run], asked)
        assert [one.answer for one in alone] == [one.answer for one in found]
        assert alone[0].confidence == pytest.approx(found[0].confidence, abs=1e-6)
    confidences = {found[0].confidence["acceptable"] for found in together}
    assert len(confidences) == len(together), "every run answers with its own weights"
    predictors.answers(pair, [{"text": "a dog", "text2": "a cat"}])
    assert len(predictors) == 1
    with pytest.raises(InputError, match="trained on text and text2"):
        predictors.answers(pair, [{"text": "a"}])
    predictors.clear()
    assert len(predictors) == 0


def test_a_written_answer_is_no_formula_to_a_spreadsheet(capsys):
    answers = ("=cmd()", "@a", "plain", -0.5)
    _stream(((row, Prediction(answer)) for row, answer in enumerate(answers, 2)), as_json=False)
    cells = [line["answer"] for line in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert cells == ["'=cmd()", "'@a", "plain", "-0.5"]
