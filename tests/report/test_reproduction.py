"""What the reproduction says on the page and in its Markdown, from the same cells."""

from __future__ import annotations

import json

import pytest

from peft_core.report import reproduction
from peft_core.report.reproduction import UNCORRECTED, claim_sentences, shown, side_of_zero
from scripts.reproduction.page import page, plan, summary
from scripts.reproduction.plan import CAPABOOST, LORA, MAIN, MODELS
from tests.report.reproduced import COMMAND, MACHINE, PAIR, reproduced

INTERVALS = [([0.1, 0.2], "above 0"), ([-0.2, -0.1], "below 0"), ([-0.1, 0.2], "across 0"), ([0.0, 0.2], "across 0")]
INTERVALS += [([-0.2, 0.0], "across 0"), (None, "undefined (one seed)")]


@pytest.mark.parametrize(("interval", "side"), INTERVALS)
def test_an_interval_lies_on_a_side_of_zero(interval, side):
    assert side_of_zero(interval) == side


def test_the_claim_is_said_whichever_way_it_falls():
    claim = shown(reproduced())["claim"]
    assert claim["sentences"][0] == (
        f"{PAIR}: the 95 % t interval of the paired difference is above 0 on acceptability; below 0 on similarity; "
        "across 0 on digits; undefined (one seed) on shape_orientation."
    )
    assert claim["sentences"][-1] == UNCORRECTED
    assert claim_sentences([]) == []


def test_the_sentence_follows_the_cells():
    document = reproduced()
    for cell in document["cells"]:
        if cell["method"] == CAPABOOST:
            cell["score"] = {name: score and score - 0.5 for name, score in cell["score"].items()}
    document["summary"] = summary(document["cells"])
    sentence = shown(document)["claim"]["sentences"][0]
    assert "is below 0 on acceptability, similarity, digits; undefined (one seed) on shape_orientation." in sentence


def test_tables_hold_the_figures_of_the_summary():
    document = reproduced()
    found = shown(document)
    groups = {group["name"]: group for group in found["groups"]}
    main, masks = groups["main"], groups["masks"]
    assert next(iter(groups)) == "main" and masks["title"] == "CapaBoost: kind of masks, d = 2"
    assert [table["task"] for table in main["tables"]] == list(MODELS)
    assert [table["model"] for table in main["tables"]] == list(MODELS.values())
    rows = main["tables"][0]["rows"]
    assert [row["method"] for row in rows] == [variant.key for variant in MAIN.variants]
    kept = document["summary"]["main"][: len(rows)]
    for row, source in zip(rows, kept, strict=True):
        assert {name: row[name] for name in ("mean", "std", "n", "trainable")} == {
            name: source[name] for name in ("mean", "std", "n", "trainable")
        }
    boosted = next(row for row in rows if row["method"] == CAPABOOST)
    assert boosted["versus"]["reference"] == LORA and boosted["versus"]["ci95"][0] > 0
    assert rows[0]["versus"] is None and boosted["rank_effective_mean"] == 5.25
    partly = main["tables"][3]["rows"][0]
    assert (partly["n"], partly["runs"]) == (2, 3)
    assert [table["reference"] for table in masks["tables"]] == ["random"]


def test_it_says_where_and_how_it_was_measured():
    found = shown(reproduced())
    said = f"Measured on {MACHINE}, 1 thread; torch 2.9.9; 240 steps a run; seeds 0, 1, 2, of which"
    assert found["measured"].startswith(said)
    assert (found["file"], found["commands"]) == ("assets/benchmarks/reproduce.json", [COMMAND])


def test_the_markdown_says_the_same():
    document = reproduced()
    text, found = page(document), shown(document)
    assert found["measured"] in text and all(sentence in text for sentence in found["claim"]["sentences"])
    assert "| 0.823 ± 0.021 | +0.103 [+0.089, +0.118] |" in text


def test_a_quoted_figure_is_refused():
    document = reproduced()
    document["summary"]["main"][0]["kind"] = "quoted"
    with pytest.raises(TypeError, match="quoted"):
        shown(document)


def test_what_ships_is_summed_up_from_its_own_cells():
    document = reproduction.shipped_reproduction()
    if document is None:
        pytest.skip("not measured yet")
    assert document["plan"] == plan()
    assert document["summary"] == json.loads(json.dumps(summary(document["cells"])))
    assert shown(document)["claim"]["rows"]
