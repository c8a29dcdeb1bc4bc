"""Tables and images of one's own: what is guessed, how rows are divided, what a preview says."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peft_core.records import InputError
from peft_core.tasks import describe_options, get_task, preview, task_origin
from peft_core.tasks._hub_task import HUB_IMAGE_OPTIONS, HUB_OPTIONS
from tests.tasks.own_data import refusal, shared_data, table

GOLDEN = [91, 77, 54, 70, 32]
CONTEXT = "Mina has the red box. Otto went to the old mill."


def csv_of(folder: Path, header: str, rows: list[str], name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "row", "kind", "roles"),
    [
        ("review,sentiment", "good {n},{c}", "classification", {"text": "review", "label": "sentiment"}),
        ("id,body,topic", "{n},words {n},t{c}", "classification", {"text": "body", "label": "topic"}),
        ("a,b", "some words {n},{c}", "classification", {"text": "a", "label": "b"}),
        ("text,label", "intent of {n},{i}", "classification", {"text": "text", "label": "label"}),
        ("text,score", "some words {n},{n}.5", "regression", {"text": "text", "label": "score"}),
        ("premise,hypothesis,label", "p {n},h {n},{c}", "pair_classification",
         {"text": "premise", "text2": "hypothesis", "label": "label"}),
        ("sentence1,sentence2,similarity", "p {n},h {n},0.{n}", "pair_regression",
         {"text": "sentence1", "text2": "sentence2", "label": "similarity"}),
        ("source,target", "text {n},translated {n}", "generation", {"text": "source", "target": "target"}),
        ("document,summary", "text {n},short {n}", "generation", {"text": "document", "target": "summary"}),
        ("question,context,answer", "Who {n}?,{n} Mina has it,Mina", "span_qa",
         {"question": "question", "context": "context", "answers": "answer"}),
    ],
)  # fmt: skip
def test_columns_and_kind_are_guessed(tmp_path, header, row, kind, roles):
    found = preview(str(csv_of(tmp_path, header, [row.format(n=n, c=n % 3, i=n // 2) for n in range(120)])))
    assert (found.problems, found.kind, dict(found.roles)) == ((), kind, roles)
    assert set(found.guessed) == {*roles, "kind"}
    assert found.rows == 120 and len(found.examples) == 5


def test_a_column_that_never_changes_is_not_the_label(tmp_path):
    path = csv_of(
        tmp_path, "id,remark,mood,day", [f"{n},this is remark {n},{'ok' if n % 3 else 'bad'},Monday" for n in range(40)]
    )
    assert preview(str(path)).roles == {"text": "remark", "label": "mood"}


def test_what_is_given_is_not_guessed(tmp_path):
    path = csv_of(tmp_path, "text,label,other", [f"words {n},{n % 2},more words {n}" for n in range(40)])
    found = preview(str(path), {"text": "other", "kind": "regression"})
    assert found.kind == "regression" and found.roles == {"text": "other", "label": "label"}
    assert found.guessed == ("label",)
    assert (
        get_task(str(path), {"text": "other"})
        .rows("eval", 1, 0, {"text": "other"})
        .columns["text"][0]
        .startswith("more")
    )


@pytest.mark.parametrize("name", ["table.tsv", "table.jsonl", "table.parquet", "table.csv.gz", "semicolon.csv"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, labels = [f"text {n}" for n in range(50)], [n % 2 for n in range(50)]
    path, pairs = tmp_path / name, list(zip(texts, labels, strict=True))
    plain = csv_of(tmp_path, "text,label", [f"{text},{label}" for text, label in pairs], "plain.csv")
    if name == "table.jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs))
    elif name == "table.parquet":
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
    else:
        mark = {"table.tsv": "\t", "semicolon.csv": ";"}.get(name, ",")
        data = plain.read_text().replace(",", mark).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    expected, rows = (get_task(str(file)).rows("train", 40, 0, {}) for file in (plain, path))
    assert rows.columns["text"] == expected.columns["text"] and (rows.labels == expected.labels).all()
    assert [int(text.split()[1]) % 2 for text in rows.columns["text"]] == rows.labels.tolist()


def test_a_share_of_every_class_is_held_out_and_texts_stay_apart(tmp_path):
    path = csv_of(tmp_path, "text,label", [f"sentence {n // 2},{'rare' if n < 20 else 'common'}" for n in range(400)])
    task = get_task(str(path))
    train, held = (task.rows(part, count, 0, {}) for part, count in (("train", 320), ("eval", 80)))
    assert np.bincount(held.labels).tolist() == [76, 4]
    assert not set(train.columns["text"]) & set(held.columns["text"])
    other = get_task(str(path), {"split_seed": 1}).rows("eval", 80, 0, {"split_seed": 1})
    assert set(other.columns["text"]) != set(held.columns["text"])


def test_fewer_rows_are_a_prefix_and_the_data_seed_moves_no_row_across(tmp_path):
    task = get_task(str(table(tmp_path, 100)))
    few, more = task.rows("train", 10, 3, {}), task.rows("train", 50, 3, {})
    assert few.columns["text"] == more.columns["text"][:10] and (few.labels == more.labels[:10]).all()
    again = task.rows("train", 50, 4, {})
    assert again.columns["text"] != more.columns["text"]
    assert not set(again.columns["text"]) & set(task.rows("eval", 20, 3, {}).columns["text"])
    with pytest.raises(InputError, match="train_rows is 81; it must be a whole number from 1 to 80"):
        task.rows("train", 81, 0, {})


def test_rows_that_are_left_out_unless_asked_for_are_said(tmp_path, monkeypatch):
    assert "unless more" not in get_task(str(table(tmp_path))).info.protocol
    monkeypatch.setattr("peft_core.tasks._table_task.DEFAULT_TRAIN", 20)
    info = get_task(str(table(tmp_path, name="other.csv"))).info
    assert info.train_rows == 20
    assert f"unless more are asked for, 20 of {info.max_train_rows} training rows, drawn" in info.protocol


def test_the_order_of_rows_stays_the_same_in_every_process_and_release(tmp_path):
    rows = get_task(str(table(tmp_path, 100))).rows("train", 5, 0, {})
    assert [int(text.split()[-1]) for text in rows.columns["text"]] == GOLDEN


def test_the_origin_of_a_task_is_told_by_its_id():
    names = ("sentiment", "glue/cola", "hub:a/b", "/etc/passwd", "table.csv", "../../etc")
    assert [task_origin(name) for name in names] == ["embedded", "benchmark", "hub", "local", "local", "local"]


def test_a_changed_file_is_read_anew(tmp_path):
    path = table(tmp_path, 40)
    assert get_task(str(path)).info.max_train_rows == 32
    table(tmp_path, 80)
    assert get_task(str(path)).info.max_train_rows == 64


def test_a_folder_with_a_split_of_its_own(tmp_path):
    table(tmp_path, 40, "train.csv")
    table(tmp_path, 8, "dev.csv")
    info = get_task(str(tmp_path)).info
    assert (info.max_train_rows, info.max_eval_rows) == (40, 8)
    (tmp_path / "dev.csv").write_text("text,label\nx,perhaps\n")
    with pytest.raises(
        InputError, match=r"label is 'perhaps'; 1 of the 1 labels in .*dev.csv are not known; it must be one of no, yes"
    ):
        get_task(str(tmp_path)).check({})


def test_spans_are_found_where_they_stand(tmp_path):
    rows = [
        {"question": "Who?", "context": CONTEXT, "answers": {"text": ["Mina"], "answer_start": [0]}},
        {"question": "Where?", "context": CONTEXT + " ", "answers": ["the old mill", "old mill"]},
        {"question": "What?", "context": CONTEXT + "  ", "answers": {"text": ["the red box"], "answer_start": [99]}},
        {"question": "When?", "context": CONTEXT + "   ", "answers": {"text": [], "answer_start": []}},
    ]
    path = tmp_path / "qa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = get_task(str(path))
    assert task.info.kind == "span_qa" and task.info.outputs == 2 and task.info.metrics == ("exact_match", "qa_f1")
    found = {}
    for part, count in (("train", task.info.max_train_rows), ("eval", task.info.max_eval_rows)):
        columns = task.rows(part, count, 0, {}).columns
        found |= dict(zip(columns["question"], columns["answers"], strict=True))
    assert found == {
        "Who?": (("Mina", 0),),
        "Where?": (("the old mill", 35), ("old mill", 39)),
        "What?": (("the red box", 9),),
        "When?": (),
    }
    rows[0]["answers"] = {"text": ["Nora"], "answer_start": [0]}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "1 of 4 rows have an answer that does not stand in their context" in refusal(path)
    assert len(get_task(str(path), {"drop_bad": True}).rows("train", 2, 0, {"drop_bad": True})) == 2


def test_references_of_one_source_are_gathered_for_evaluation(tmp_path):
    rows = [f"meaning {n // 3},wording {n} of {n // 3}" for n in range(90)]
    task = get_task(str(csv_of(tmp_path, "source,target", rows)))
    assert task.info.max_train_rows == 72 and task.info.max_eval_rows == 6
    held = task.rows("eval", 6, 0, {})
    assert len(set(held.columns["text"])) == 6
    for text, targets in zip(held.columns["text"], held.columns["target"], strict=True):
        number = int(text.split()[1])
        assert sorted(targets) == sorted(f"wording {3 * number + n} of {number}" for n in range(3))
    assert all(len(targets) == 1 for targets in task.rows("train", 72, 0, {}).columns["target"])


def test_where_rows_came_from_is_told(tmp_path):
    import hashlib

    path = table(tmp_path)
    told = get_task(str(path)).provenance({})["train"]
    assert told == {
        "file": "table.csv", "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }  # fmt: skip


def test_every_option_has_help_and_the_type_of_its_default(tmp_path):
    types = {"bool": bool, "int": int, "float": float, "str": str}
    infos = [get_task(str(table(tmp_path))).info, get_task("glue/cola").info, get_task("vtab/pets").info]
    names = {"hub": HUB_OPTIONS, "hub images": HUB_IMAGE_OPTIONS}
    for info in infos + [replace(infos[0], id=name, options=options) for name, options in names.items()]:
        described = describe_options(info)
        assert [entry["name"] for entry in described] == list(info.options)
        assert all(entry["default"] is None or type(entry["default"]) is types[entry["type"]] for entry in described)
    (protocol,) = describe_options(infos[1])
    assert protocol["choices"] == ["default", "adalora", "propetl"]
    assert describe_options(get_task("rank_probe").info) == []


def test_what_is_kept_of_files_is_bounded(monkeypatch):
    from peft_core.tasks import _memory

    monkeypatch.setattr(_memory, "_kept", {})
    monkeypatch.setattr(_memory, "MOST_BYTES", 2500)
    for number in range(5):
        assert len(_memory.remembered((number,), lambda: np.zeros(1000, dtype=np.uint8))) == 1000
    assert list(_memory._kept) == [(3,), (4,)]
    assert _memory.remembered((4,), lambda: pytest.fail("it is kept")).nbytes == 1000


@pytest.mark.parametrize("name", ["nowhere.csv", "no/such/folder", "glue/nothing", "unknown_task"])
def test_what_is_not_there(name):
    with pytest.raises(InputError, match=r"task is .*(no such file|must be one of)"):
        get_task(name)


def test_a_problem_is_told_by_the_preview_with_what_can_be_shown(tmp_path):
    path = csv_of(tmp_path, "text,label", [f"words {n}," + ("1" if n else "") for n in range(9)])
    found = preview(str(path))
    assert found.info is None and found.columns == ("text", "label") and found.examples[1]["text"] == "words 1"
    assert "column 'label' is empty or NaN in 1 of 9 rows" in found.problems[0]
    assert "all 8 rows have the label '1'" in found.problems[1]
    assert preview("nothing_like_it").problems[0].startswith("task is 'nothing_like_it'")
    assert preview("sentiment").info.kind == "classification"


def picture(shade: int, size: tuple[int, int] = (40, 30)) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", size, (shade, 255 - shade, 0)).save(data, "PNG")
    return data.getvalue()


def image_zip(path: Path, names: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return path


def two_classes(prefix: str = "", count: int = 10) -> dict[str, bytes]:
    return {
        f"{prefix}{kind}/{n}.png": picture(n + 100 * (kind == "dog")) for kind in ("cat", "dog") for n in range(count)
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_of_images_by_class(tmp_path, zipped):
    names = two_classes("pets/")
    path = image_zip(tmp_path / "pets.zip", names) if zipped else tmp_path / "pets"
    if not zipped:
        for name, data in names.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
    task = get_task(str(path))
    assert task.info.labels == ("cat", "dog") and (task.info.max_train_rows, task.info.max_eval_rows) == (16, 4)
    rows = task.rows("train", 16, 0, {})
    assert rows.columns["image"].shape == (16, 30, 30, 3) and rows.columns["image"].dtype == np.uint8
    assert ((rows.columns["image"][:, 0, 0, 0] >= 100) == (rows.labels == 1)).all()
    if not zipped:
        (path / "cat/new.png").write_bytes(picture(3))
        assert get_task(str(path)).info.max_train_rows + get_task(str(path)).info.max_eval_rows == 21
    small = {"image_size": 12}
    assert get_task(str(path), small).rows("eval", 4, 0, small).columns["image"].shape == (4, 12, 12, 3)


def test_images_with_their_own_split_and_lists(tmp_path):
    own = {**two_classes("train/", 8), **two_classes("test/", 3)}
    info = get_task(str(image_zip(tmp_path / "own.zip", own))).info
    assert (info.max_train_rows, info.max_eval_rows, info.labels) == (16, 6, ("cat", "dog"))
    lists = {f"images/{n}.png": picture(n) for n in range(10)}
    lists["train800val200.txt"] = "\n".join(f"images/{n}.png {n % 2}" for n in range(6)).encode()
    lists["test.txt"] = "\n".join(f"images/{n}.png {n % 2}" for n in range(6, 10)).encode()
    task = get_task(str(image_zip(tmp_path / "lists.zip", lists)))
    assert (task.info.max_train_rows, task.info.max_eval_rows, task.info.labels) == (6, 4, ("0", "1"))
    assert sorted(task.rows("train", 6, 0, {}).columns["image"][:, 0, 0, 0].tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"../cat/1.png": b"x"}, "leads out of the archive"),
        ({"/cat/1.png": b"x"}, "leads out of the archive"),
        ({"a\\..\\..\\b.png": b"x"}, "leads out of the archive"),
        ({"cat/1.png": bytes(30 * 2**20)}, "as a zip bomb does"),
        ({"cat/1.png": bytes(65 * 2**20)}, "has 65 MiB; at most 64 are read"),
        ({"readme.txt": b"x"}, "it holds no images"),
        ({"1.png": b"x", "cat/2.png": b"x"}, "image '1.png' is in no folder of a class"),
        ({"cat/1.png": b"x", "cat/2.png": b"x"}, "all images are of the class 'cat'"),
    ],
)
def test_zips_that_are_refused(tmp_path, names, sentence):
    assert sentence in refusal(image_zip(tmp_path / "images.zip", names))


def test_a_link_in_a_zip_and_a_file_that_is_none(tmp_path):
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("cat/1.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "is a link" in refusal(path)
    (tmp_path / "no.zip").write_bytes(b"not a zip")
    assert "it is no zip archive" in refusal(tmp_path / "no.zip")


def test_broken_and_huge_images_are_named(tmp_path, monkeypatch):
    from peft_core.tasks import _pixels

    names = two_classes() | {"cat/broken.png": picture(1)[:60], "dog/huge.png": picture(1, (300, 200))}
    path = str(image_zip(tmp_path / "images.zip", names))
    monkeypatch.setattr(_pixels, "MAX_PIXELS", 50_000)
    found = preview(path)
    assert len(found.problems) == 2
    assert any("'cat/broken.png'" in told for told in found.problems)
    assert any("'dog/huge.png': it has 300 x 200 pixels; at most 50,000 are read" in told for told in found.problems)
    with pytest.raises(InputError, match="drop_bad=true leaves such images out"):
        task = get_task(path)
        task.rows("train", task.info.max_train_rows, 0, {})
    drop = {"drop_bad": True}
    assert len(get_task(path, drop).rows("train", 15, 0, drop)) == 15


def test_real_translations_and_wordings_are_read_as_tables():
    data = shared_data() / "text"
    pairs = get_task(str(data / "roen_xquad"))
    assert (pairs.info.kind, pairs.info.max_train_rows) == ("generation", 1730)
    wordings = get_task(str(data / "e2e_nlg"))
    assert (wordings.info.max_train_rows, wordings.info.max_eval_rows) == (4672, 630)
    assert sum(map(len, wordings.rows("eval", 630, 0, {}).columns["target"])) == 4693


def test_a_picture_taken_sideways_is_turned_upright():
    from PIL import Image

    from peft_core.tasks._pixels import pixels

    upright = np.zeros((16, 16, 3), dtype=np.uint8)
    upright[:8] = 255
    turned, said = io.BytesIO(), Image.Exif()
    said[0x0112] = 6  # Orientation: turn by 90 degrees clockwise to see it upright
    Image.fromarray(np.rot90(upright)).save(turned, format="PNG", exif=said)
    assert np.array_equal(pixels(turned.getvalue(), 16), upright)
