"""Side by side: every run's own answers, and the rows on which they differ, counted as the runs' scores were."""

from __future__ import annotations

import base64
import io
import queue
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from peft_core.commands._answering import Desk, serve
from peft_core.export.finished import FinishedRun
from peft_core.export.predicting import Predictors
from peft_core.export.trying import Disagreements, answered, described, scanned
from peft_core.records import ComparisonSpec, InputError, MethodSpec, TrainingConfig
from peft_core.runs.folders import comparison_folder
from peft_core.runs.reader import Reader
from peft_core.tasks import get_task

ROWS = 40
METHODS = ("lora:rank=2,learning_rate=0.05", "bitfit")
MADE = {"similarity": "tiny-text", "span_qa": "tiny-text", "digits": "tiny-vision"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`home`: a store with a comparison of two methods for every kind. `ids`: by task."""
    from peft_core.runs import Supervisor

    home, ids = tmp_path_factory.mktemp("trying") / "home", {}
    with Supervisor(home, executor="thread") as supervisor:
        for task, model in MADE.items():
            spec = ComparisonSpec(
                model=model,
                task=task,
                methods=tuple(map(MethodSpec.parse, METHODS)),
                seeds=(0,),
                train_rows=48,
                eval_rows=ROWS,
                training=TrainingConfig(steps=4, batch_size=8),
                plan="apart",
            )
            ids[task] = supervisor.submit(spec)
        for name in ids.values():
            supervisor.wait(name)
    return SimpleNamespace(home=home, ids=ids)


@pytest.fixture(scope="module")
def predictors():
    return Predictors(backbones=1)


def runs_of(made, task):
    view = Reader(made.home / "store.sqlite").view(made.ids[task])
    folder = comparison_folder(made.home, made.ids[task])
    return [FinishedRun.of(view, row.run, folder / row.run / "adapter") for row in view.runs]


def table_of(made, predictors, task):
    table, steps = Disagreements(predictors, runs_of(made, task), task), 1
    while table.step():
        steps += 1
    assert table.progress == (2 * ROWS, 2 * ROWS)
    assert steps == 4, "32 rows at a time, then the other 8, for both runs"
    return table.table()


def test_rows_with_different_classes_are_found_and_counted_as_the_score_was(made, predictors):
    runs, table = runs_of(made, "digits"), table_of(made, predictors, "digits")
    accuracy = [run.result.score["accuracy"] for run in runs]
    assert [right / ROWS for right in table["right"]] == pytest.approx(accuracy)
    assert (table["looked"], table["evaluated"], table["differ"]) == (ROWS, ROWS, len(table["rows"]))
    source = get_task("digits")
    rows = source.rows("eval", ROWS, 0, {})
    assert table["differ"] >= 1
    for row in table["rows"]:
        assert len(set(row["answers"])) == 2 and row["spread"] == 1
        assert row["truth"] == source.info.labels[rows.labels[row["row"] - 1]]
        assert row["right"] == [answer == row["truth"] for answer in row["answers"]]
        assert all(0 < share <= 1 for share in row["confidence"])
        assert Image.open(io.BytesIO(base64.b64decode(row["input"]["image"]))).size == (32, 32)
    listed = {row["row"] for row in table["rows"]}
    same = [place for place in range(ROWS) if place + 1 not in listed]
    first, second = predictors.answers(runs, [{"image": rows.columns["image"][place]} for place in same], "digits")
    assert [one.answer for one in first] == [one.answer for one in second], "no row that differs is left out"


def test_numbers_differ_by_deviations_and_texts_by_their_words(made, predictors):
    reading = runs_of(made, "similarity")[0].recipe().tasks[0].reading
    table = table_of(made, predictors, "similarity")
    assert table["right"] == [None, None] and 0 < table["differ"] == len(table["rows"])
    for row in table["rows"]:
        one, other = row["answers"]
        assert row["spread"] == pytest.approx(abs(one - other) / reading.deviation[0]) and row["spread"] >= 0.5
        assert isinstance(row["truth"], float) and set(row["input"]) == {"text", "text2"}
    spans = table_of(made, predictors, "span_qa")
    exact = [run.result.score["exact_match"] for run in runs_of(made, "span_qa")]
    assert [right / ROWS for right in spans["right"]] == pytest.approx(exact)


def test_a_comparison_says_how_it_is_asked_and_answers_with_every_run(made, predictors):
    runs = runs_of(made, "span_qa")
    about = described(predictors, runs[0], "span_qa")
    assert about["roles"] == ["question", "context"] and about["problem"] == "span" and len(about["examples"]) == 4
    found = answered(predictors, runs, "span_qa", about["examples"][0])
    assert [one["run"] for one in found] == [run.row.run for run in runs]
    assert all(one["answer"] in about["examples"][0]["context"] for one in found)
    with pytest.raises(InputError, match="context"):
        answered(predictors, runs, "span_qa", {"question": "Who?"})
    (runs[1].folder / "head.safetensors").rename(runs[1].folder / "gone")
    try:
        first, second = answered(Predictors(), runs, "span_qa", about["examples"][0])
    finally:
        (runs[1].folder / "gone").rename(runs[1].folder / "head.safetensors")
    assert "answer" in first and "cannot be read" in second["error"]


def picture(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_drawing_is_cut_centred_and_averaged_as_scans_are():
    drawn = np.zeros((256, 256, 3), np.uint8)
    drawn[40:200, 180:220] = 255
    found = np.asarray(Image.open(io.BytesIO(scanned(picture(drawn), 8))))
    assert found.shape == (8, 8) and (found[:, 3:5] == 255).all() and (found[:, [0, 1, 2, 5, 6, 7]] == 0).all()
    with pytest.raises(InputError, match="draw something first"):
        scanned(picture(np.zeros((64, 64, 3), np.uint8)), 8)


@pytest.fixture
def desk(made, predictors):
    sent = []
    return SimpleNamespace(desk=Desk(made.home, predictors, sent.append), sent=sent)


def command(made, task, number, kind, **more):
    runs = [run.row.run for run in runs_of(made, task)]
    return {"number": number, "kind": kind, "comparison": made.ids[task], "runs": runs, "task": task, **more}


def test_the_latest_question_wins_and_a_table_lets_questions_go_first(made, desk):
    words = {"visitor": "me", "input": {"text": "she sleeps", "text2": "he sleeps"}}
    desk.desk.take(command(made, "similarity", 1, "table"))
    desk.desk.step()
    for number in (2, 3):
        desk.desk.take(command(made, "similarity", number, "ask", **words))
    desk.desk.take(command(made, "similarity", 4, "ask", **{**words, "visitor": "you"}))
    while desk.desk.busy:
        desk.desk.step()
    assert [reply["number"] for reply in desk.sent] == [1, 2, 3, 4, 1, 1, 1]
    assert desk.sent[0]["progress"] == (32, 80) and desk.sent[1]["answer"] == {"late": True}
    assert len(desk.sent[2]["answer"]["answers"]) == 2 and desk.sent[-1]["answer"]["looked"] == ROWS


def test_the_process_ends_when_nobody_asks(made, desk):
    inbox = queue.SimpleQueue()
    inbox.put(command(made, "span_qa", 1, "ask", input={"text": "x"}))
    serve(inbox, desk.desk, idle=0.01)
    assert [reply["number"] for reply in desk.sent] == [1] and desk.sent[0]["error"]["field"] == "text"


def test_a_picture_is_never_a_path_and_bad_ones_are_sentences(made, desk):
    bomb = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(bomb, "PNG")
    for given in (b"/etc/hostname", bomb.getvalue()):
        desk.desk.take(command(made, "digits", 1, "ask", input={"image": base64.b64encode(given).decode()}))
    desk.desk.take(command(made, "digits", 2, "ask", input={"image": "/etc/hostname"}))
    drawn = base64.b64encode(picture(np.full((280, 280, 3), 255, np.uint8))).decode()
    desk.desk.take(command(made, "digits", 3, "ask", input={"image": drawn}, drawn=True))
    while desk.desk.busy:
        desk.desk.step()
    late, large, path, good = (reply.get("error", reply.get("answer")) for reply in desk.sent)
    assert late == {"late": True}
    assert large["field"] == "image" and "9000 x 9000" in large["message"]
    assert path["field"] == "image"
    assert [len(one["confidence"]) for one in good["answers"]] == [10, 10]
    with pytest.raises(InputError):
        FinishedRun.of(Reader(made.home / "store.sqlite").view(made.ids["digits"]), "../../x", made.home)
