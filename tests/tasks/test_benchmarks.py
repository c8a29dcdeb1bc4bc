"""Benchmarks: the table, the real rows in RANKLAB_DATA, the papers' splits and settings."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from peft_core.methods import list_methods
from peft_core.metrics.scores import CLASS_METRICS, NUMBER_METRICS
from peft_core.metrics.texts import ANSWER_METRICS, GENERATION_METRICS
from peft_core.records import InputError, MethodSpec, TrainingConfig
from peft_core.tasks import get_task, list_benchmarks, presets
from peft_core.tasks._benchmark_table import BENCHMARKS
from peft_core.tasks._contract import PROBLEMS
from peft_core.tasks._hub import COMMIT, check_id
from peft_core.tasks._table_task import METRICS as OWN_METRICS
from tests.tasks.own_data import shared_data

METRICS = {
    "classification": set(CLASS_METRICS),
    "regression": set(NUMBER_METRICS),
    "span": set(ANSWER_METRICS),
    "generation": set(GENERATION_METRICS),
}
"""By what a model's head is for."""
LABELS = {
    "cola": ("unacceptable", "acceptable"),
    "rte": ("entailment", "not_entailment"),
    "mrpc": ("not_equivalent", "equivalent"),
    "sst2": ("negative", "positive"),
    "wnli": ("not_entailment", "entailment"),
}


@pytest.fixture
def data(monkeypatch) -> Path:
    folder = shared_data()
    monkeypatch.setenv("RANKLAB_DATA", str(folder))
    return folder


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_every_line_of_the_table_is_whole(benchmark):
    assert check_id(benchmark.repository)
    assert benchmark.revision is None or COMMIT.fullmatch(benchmark.revision)
    info = get_task(benchmark.id).info
    assert set(benchmark.metrics) <= METRICS[info.problem]
    assert info.origin == "benchmark" and info.kind == benchmark.kind and info.protocol
    if benchmark.kind.endswith("classification"):
        assert info.labels is not None and len(info.labels) == info.outputs > 1
    if benchmark.drawn:
        assert info.max_train_rows == 1000


def test_own_data_is_scored_by_metrics_that_there_are():
    for kind, metrics in OWN_METRICS.items():
        assert set(metrics) <= METRICS[PROBLEMS[kind]]


def test_the_benchmarks_of_the_issue_are_there():
    glue = {f"glue/{name}" for name in ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]}
    others = {"squad", "squad_v2", "cifar100", "food101", "xsum", "wmt16/ro-en"}
    assert glue | others <= set(BENCHMARKS)
    assert sum(name.startswith("vtab/") for name in BENCHMARKS) == 12


def test_without_local_rows_nothing_is_at_hand_and_a_start_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("RANKLAB_DATA", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not any(there for _, there in list_benchmarks())
    with pytest.raises(InputError, match="neither in RANKLAB_DATA nor in the cache"):
        get_task("glue/qqp").check({})
    assert get_task("glue/qqp").info.max_train_rows == 363846


@pytest.mark.parametrize("name", LABELS)
def test_real_glue_rows_are_the_official_ones(data, name):
    task = get_task(f"glue/{name}")
    info, listed = task.info, BENCHMARKS[f"glue/{name}"]
    assert listed.verified and info.labels == LABELS[name]
    assert (info.max_train_rows, info.max_eval_rows) == (listed.train_rows, listed.eval_rows)
    assert "not the official split" not in info.protocol
    rows = task.rows("eval", info.max_eval_rows, 0, {})
    assert set(rows.columns) == ({"text"} if name in ("cola", "sst2") else {"text", "text2"})
    assert rows.labels.dtype == np.int64 and len(rows.labels) == listed.eval_rows
    assert set(task.provenance({})["train"]) == {"file", "bytes", "sha256"}


def test_labels_are_numbered_as_the_benchmark_numbers_them(data):
    rows = get_task("glue/rte").rows("eval", 277, 0, {})
    assert np.bincount(rows.labels).tolist() == [146, 131]
    assert np.bincount(get_task("glue/cola").rows("eval", 1043, 0, {}).labels).tolist() == [322, 721]
    rows = get_task("glue/wnli").rows("train", 635, 5, {})
    assert np.bincount(rows.labels).tolist() == [323, 312]


def test_the_local_squad_rows_are_labelled_a_subset(data):
    task = get_task("squad")
    assert "not the official split: 2,256 training and 654 evaluation rows" in task.info.protocol
    rows = task.rows("eval", 654, 0, {})
    for context, answers in zip(rows.columns["context"], rows.columns["answers"], strict=True):
        assert answers and all(context[start : start + len(text)] == text for text, start in answers)


def test_the_list_tells_what_is_at_hand(data):
    found = {info.id: (info, there) for info, there in list_benchmarks()}
    assert {name for name, (_, there) in found.items() if there} >= {"glue/cola", "glue/sst2", "squad", "cifar10"}
    assert not found["vtab/pets"][1] and found["squad"][0].max_train_rows == 2256


def test_real_photographs_are_decoded_at_their_own_size(data):
    task = get_task("cifar10")
    assert task.info.labels[:3] == ("airplane", "automobile", "bird")
    assert "not the official split: 10,000 training and 2,000 evaluation rows" in task.info.protocol
    rows = task.rows("train", 500, 0, {})
    assert rows.columns["image"].shape == (500, 32, 32, 3)
    assert np.bincount(rows.labels, minlength=10).min() > 25
    mean = rows.columns["image"].mean((0, 1, 2)) / 255
    assert np.abs(mean - [0.491, 0.482, 0.447]).max() < 0.03


def ordered_texts(path: Path) -> list[str]:
    import gzip

    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        return [row["sentence1"] + row["sentence2"] for row in csv.DictReader(stream)]


def test_propetl_halves_the_validation_rows_of_a_small_set(data):
    import torch

    options = {"protocol": "propetl"}
    task = get_task("glue/rte", options)
    info = task.info
    assert (info.max_train_rows, info.validation_rows, info.max_eval_rows) == (2490, 138, 139)
    texts = ordered_texts(data / "glue/rte/validation.csv.gz")
    order = torch.randperm(277, generator=torch.Generator().manual_seed(42)).tolist()

    def together(rows):
        return {one + two for one, two in zip(rows.columns["text"], rows.columns["text2"], strict=True)}

    assert together(task.validation(138, 0, options)) == {texts[row] for row in order[:138]}
    assert together(task.rows("eval", 139, 0, options)) == {texts[row] for row in order[138:]}


def test_propetl_takes_1000_training_rows_of_a_large_set(data):
    options = {"protocol": "propetl"}
    info = get_task("glue/sst2", options).info
    assert (info.max_train_rows, info.validation_rows, info.max_eval_rows) == (66349, 1000, 872)
    assert get_task("glue/qqp", options).info.validation_rows == 1000
    with pytest.raises(InputError, match=r"task_options\.protocol is 'propetl'; it must be one of default, adalora"):
        get_task("glue/wnli").check(options)
    assert "AdaLoRA" in get_task("glue/cola", {"protocol": "adalora"}).info.protocol


def vtab(folder: Path, images: int) -> None:
    """A copy with the set's own lists: `images` training images of 37 classes, 40 to test."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    names = [f"images/{number}.png" for number in range(images + 40)]
    for number, name in enumerate(names):
        Image.new("RGB", (9, 9), (number % 256, number // 256, 0)).save(folder / name)
    lines = [f"{name} {number % 37}" for number, name in enumerate(names)]
    (folder / "train800val200.txt").write_text("\n".join(lines[:images]))
    (folder / "test.txt").write_text("\n".join(lines[images:]))


def test_vtab_is_read_by_its_lists_and_can_be_tuned_on_800_and_200(tmp_path, monkeypatch):
    vtab(tmp_path / "vtab-1k/oxford_iiit_pet", 1000)
    monkeypatch.setenv("RANKLAB_DATA", str(tmp_path))
    info = get_task("vtab/pets").info
    assert (info.max_train_rows, info.max_eval_rows, info.outputs) == (1000, 40, 37)
    options = {"protocol": "800/200"}
    task = get_task("vtab/pets", options)
    assert (task.info.max_train_rows, task.info.max_eval_rows) == (800, 200)
    pixels = task.rows("eval", 200, 0, options).columns["image"][:, 0, 0].astype(int)
    assert sorted((pixels[:, 0] + 256 * pixels[:, 1]).tolist()) == list(range(800, 1000))


def test_a_larger_copy_of_a_vtab_set_is_cut_to_1000_images_and_says_so(tmp_path, monkeypatch):
    vtab(tmp_path / "vtab/pets", 1100)
    monkeypatch.setenv("RANKLAB_DATA", str(tmp_path))
    info = get_task("vtab/pets").info
    assert info.max_train_rows == 1000 and "drawn by a hash of their names" in info.protocol


def test_a_copy_with_other_columns_or_labels_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "glue/cola"
    folder.mkdir(parents=True)
    monkeypatch.setenv("RANKLAB_DATA", str(tmp_path))
    for part in ("train", "validation"):
        (folder / f"{part}.csv").write_text("phrase,label\n" + "a,0\nb,1\n" * 4)
    with pytest.raises(InputError, match="glue/cola needs the columns sentence, label or text, label"):
        get_task("glue/cola").check({})
    for part in ("train", "validation"):
        (folder / f"{part}.csv").write_text("sentence,label\n" + "a,0\nb,2\n" * 4)
    with pytest.raises(
        InputError,
        match=r"label is '2'; 4 of the 8 labels in train.csv are not known; it must be one of unacceptable, acceptable",
    ):
        get_task("glue/cola").check({})


def test_translations_from_local_files(tmp_path, monkeypatch):
    folder = tmp_path / "wmt16/ro-en"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        rows = [
            {"translation": {"ro": f"unu {n}", "en": f"one {n}"}, "ro": f"unu {n}", "en": f"one {n}"} for n in range(5)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("RANKLAB_DATA", str(tmp_path))
    rows = get_task("wmt16/ro-en").rows("eval", 5, 0, {})
    assert dict(zip(rows.columns["text"], rows.columns["target"], strict=True))["unu 0"] == ("one 0",)


def test_presets_are_what_the_tables_print():
    found = {(preset.name, preset.paper): preset for preset in presets("glue/rte")}
    lora = found["capaboost/roberta-base/capaboost_lora:d=2,rank=32", "capaboost"]
    assert (lora.training["learning_rate"], lora.training["batch_size"], lora.training["epochs"]) == (6e-4, 128, 40)
    assert lora.protocol == "propetl" and lora.sources["learning_rate"] == "Table 9"
    increlora = found["increlora/deberta-v3-base/increlora", "increlora"]
    assert (increlora.options["top_h"], increlora.options["interval"], increlora.training["epochs"]) == (5, 100, 50)
    assert {preset.options["bottleneck"] for preset in presets("squad_v2")} == {64, 32, 16, 8}
    assert {preset.training["steps"] for preset in presets("xsum")} == {100_000}
    assert presets("vtab/dmlab") and not presets("food101") and not presets("sentiment")


def test_presets_fit_the_methods_and_the_training_settings():
    methods = {method.id: method for method in list_methods()}
    every = [preset for name in BENCHMARKS for preset in presets(name)]
    assert len({(preset.task, preset.name) for preset in every}) == len(every)
    for preset in every:
        assert {*preset.options, *preset.training} <= set(preset.sources), preset
        TrainingConfig(**preset.training)
        get_task(preset.task, {"protocol": preset.protocol})
        if preset.method in methods:
            MethodSpec(id=preset.method, options=dict(preset.options))
            methods[preset.method].Config(**preset.options)
