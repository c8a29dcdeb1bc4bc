"""The reproduction in miniature: it stops and goes on, retrains learned ranks, and says what is missing."""

from __future__ import annotations

import json

import pytest

from scripts import reproduce
from scripts.reproduction.plan import ABLATIONS, ADALORA, CAPABOOST, GROUPS, INCRELORA, MAIN, MODELS, needed

SMALL = {"tasks": "acceptability", "steps": 12, "batch-size": 4, "train-rows": 8, "eval-rows": 8, "ablation-seeds": 2}


@pytest.fixture
def rates(tmp_path):
    file = tmp_path / "rates.json"
    names = {variant.method.partition(":")[0] for group in GROUPS for variant in group.variants}
    row = {"task": "acceptability", "model": "tiny-text", "learning_rate": 0.01}
    file.write_text(json.dumps({"choices": [row | {"method": name} for name in sorted(names - {"r_lora", "gm_lora"})]}))
    return file


def run(tmp_path, rates, *words: str) -> dict:
    out = tmp_path / "reproduce.json"
    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    reproduce.main([*small, *words, "--rates", str(rates), "--out", str(out)])
    return json.loads(out.read_text()) if out.is_file() else {}


def test_the_plan_is_what_was_promised():
    assert len(MAIN.variants) >= 8 and len(MODELS) >= 4
    assert {group.name for group in ABLATIONS} == {
        "density", "masks", "size", "increlora", "learned_ranks", "rm_lora", "propetl",
    }  # fmt: skip
    keys = [variant.key for variant in needed(GROUPS)]
    assert len(set(keys)) == len(keys) and keys.count(CAPABOOST) == 1
    assert keys.index(INCRELORA) < keys.index(f"lora with the ranks of {INCRELORA}")


def test_lora_is_retrained_with_the_ranks_of_its_own_seed(tmp_path, rates):
    document = run(tmp_path, rates, "--part", "learned_ranks")
    cells = {(cell["method"], cell["seed"]): cell for cell in document["cells"]}
    assert len(cells) == 2 * 5
    for seed in (0, 1):
        for source in (INCRELORA, ADALORA):
            learned = {name: rank for name, rank in cells[source, seed]["ranks"].items() if rank}
            again = cells[f"lora with the ranks of {source}", seed]
            assert again["trainable"] == sum(2 * 128 * rank for rank in learned.values())
            assert again["config"]["rank_pattern"].endswith(f"@{source.partition(':')[0]}")
    rows = document["summary"]["learned_ranks"]
    assert [row["label"] for row in rows] == [
        "equal ranks",
        "ranks that IncreLoRA learned",
        "ranks that AdaLoRA learned",
    ]
    assert rows[0]["versus"] is None and rows[1]["versus"]["n"] == 2 and rows[1]["versus"]["reference"] == "equal ranks"
    page = (tmp_path / "reproduce.md").read_text()
    assert "LoRA trained again with learned ranks" in page and "reproduce.py" in page


def test_finished_cells_are_kept_and_other_settings_measured_again(tmp_path, rates, monkeypatch, capsys):
    first = run(tmp_path, rates, "--part", "rm_lora", "--ablation-seeds", "1")
    assert [cell["learning_rate"] for cell in first["cells"]] == [0.01] * 4
    with monkeypatch.context() as patch:
        patch.setattr(reproduce, "measure", lambda cohort, document: pytest.fail("it was there"))
        (tmp_path / "reproduce.json").write_text(json.dumps(first | {"plan": {}, "summary": {}}))
        (tmp_path / "reproduce.md").unlink()
        assert run(tmp_path, rates, "--part", "rm_lora", "--ablation-seeds", "1") == first
        assert "RM-LoRA's four corners: acceptability on tiny-text" in (tmp_path / "reproduce.md").read_text()
    run(tmp_path, rates, "--part", "rm_lora,propetl", "--count")
    assert "16 cells, 12 to measure" in capsys.readouterr().out
    again = run(tmp_path, rates, "--part", "rm_lora", "--ablation-seeds", "1", "--steps", "2")
    assert len(again["cells"]) == 4 and {cell["steps"] for cell in again["cells"]} == {2}
    assert len(again["commands"]) == 2


def test_without_a_learning_rate_nothing_starts(tmp_path, rates):
    document = json.loads(rates.read_text())
    document["choices"] = [row for row in document["choices"] if row["method"] != "propetl_lora"]
    rates.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="no learning rate for propetl_lora"):
        run(tmp_path, rates, "--part", "propetl")
    with pytest.raises(SystemExit, match="make it with python -m peft_core sweep"):
        run(tmp_path, tmp_path / "nothing.json", "--part", "propetl")
