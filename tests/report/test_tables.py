"""The table, its files, results.json and the report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import Any

import pytest

from peft_core.records import BudgetLock, MethodSpec, RunState, View
from peft_core.report import report_html, results_document, tables
from peft_core.report.figures import guides
from peft_core.report.palette import look
from tests.report.sample import METHODS, METRIC, sample_view

NASTY = "=cmd|'/c calc'!A1 <script>alert(1)</script> | [x](javascript:y)"


def renamed(view: View, label: str) -> View:
    """The view with the first method's label replaced, as a hostile label would look."""
    old = view.runs[0].label
    runs = tuple(run.model_copy(update={"label": label}) if run.label == old else run for run in view.runs)
    return view.model_copy(update={"runs": runs})


def failed(view: View) -> View:
    """The view with its first run failed."""
    first = view.runs[0].model_copy(
        update={"state": RunState.FAILED, "error": "loss was <NaN> at step 3.", "result": None}
    )
    return view.model_copy(update={"runs": (first, *view.runs[1:])})


def test_rows_carry_mean_difference_and_figures() -> None:
    first, second = tables.rows(sample_view())
    assert [first["label"], second["label"]] == list(METHODS)
    assert first["versus"] is None
    assert second["versus"]["reference"] == METHODS[0]
    assert second["versus"]["mean_difference"] == pytest.approx(second["mean"] - first["mean"])
    assert (second["rank"]["numerical_mean"], second["trainable"], second["n"]) == (8, 6144, 2)


def test_the_reference_can_be_chosen() -> None:
    first, second = tables.rows(sample_view(), METHODS[1])
    assert (first["versus"]["reference"], second["versus"]) == (METHODS[1], None)


def test_csv_runs_nothing_in_a_spreadsheet() -> None:
    for start in ("=", "+", "-", "@", "\t", "\r", " ="):
        assert tables.neutral(start + "x").startswith("'")
    text = tables.to_csv(tables.rows(renamed(sample_view(), NASTY)))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["label"] == "'" + NASTY
    assert float(rows[1]["mean_difference"]) == pytest.approx(
        tables.rows(sample_view())[1]["versus"]["mean_difference"]
    )


def test_markdown_and_latex_escape_labels() -> None:
    table = tables.rows(renamed(sample_view(), "a|b_c&d"))
    assert "a\\|b_c&d" in tables.to_markdown(table)
    assert r"a|b\_c\&d" in tables.to_latex(table)


def test_results_document_has_the_keys_of_the_command_line() -> None:
    view = sample_view()
    document = json.loads(json.dumps(results_document(view), allow_nan=False))
    assert set(document) == {"comparison", "environment", "plan", "runs", "summary"}
    run = document["runs"][0]
    needed = (
        "run method label seed state score baseline_score split selection trainable trainable_percent stored_bytes"
        " head_bytes rank adapter_flops_nominal flops_vs_lora seconds step_ms_median peak_memory_bytes curve error"
    )
    assert set(needed.split()) <= set(run)
    assert run["score"][METRIC] == run["curve"][-1][1]
    assert set(document["summary"][1]) == {"label", "n", "mean", "std", "ci95", "versus"}


def test_a_failed_run_keeps_its_keys_and_leaves_the_summary() -> None:
    document = results_document(failed(sample_view()))
    assert document["runs"][0]["score"] is None
    assert document["runs"][0]["error"] == "loss was <NaN> at step 3."
    assert document["summary"][0]["n"] == 1
    assert document["summary"][0]["std"] is None


def test_strict_replaces_what_json_lacks() -> None:
    assert tables.strict({"a": [math.nan, math.inf, 1.5], "b": (1,)}) == {"a": [None, None, 1.5], "b": [1]}


def embedded(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)]


def test_the_report_is_one_file_that_asks_no_other_host() -> None:
    page = report_html(failed(sample_view()))
    assert "<p>One worker &lt;in turns&gt;.</p>" in page
    assert "<script src" not in page and "<link" not in page
    assert "loss was &lt;NaN&gt; at step 3." in page
    *charts, pareto = embedded(page)
    assert len(charts) == 9 and all(chart["data"] and chart["layout"] for chart in charts)
    assert pareto["trainable mean"]["data"][1]["x"] == [8192]


def test_the_report_shows_labels_as_text() -> None:
    page = report_html(renamed(sample_view(), NASTY))
    own = page[page.index("</head>") :]
    assert "<script>alert" not in own


def test_one_seed_is_named_wherever_its_interval_is_shown() -> None:
    view = sample_view(seeds=(3,))
    table = tables.rows(view)
    versus = table[1]["versus"]
    low, high = versus["bootstrap95"]
    assert (versus["n"], versus["ci95"], table[1]["ci95"]) == (1, None, None)
    assert low < versus["mean_difference"] < high
    shown = f"[{low:+.3f}, {high:+.3f}] (one seed; bootstrap over rows)"
    texts = {"markdown": tables.to_markdown(table), "latex": tables.to_latex(table), "report": report_html(view)}
    for name, text in texts.items():
        assert shown in text, name
        assert "no interval over seeds" in text and "paired bootstrap over evaluation rows" in text, name
        assert "t interval" not in text, name
    cells = list(csv.DictReader(io.StringIO(tables.to_csv(table))))[1]
    assert cells["difference_ci95_low"] == cells["ci95_low"] == ""
    assert float(cells["row_bootstrap95_low"]) == low and float(cells["row_bootstrap95_high"]) == high
    assert "no interval over seeds" in cells["note"]
    assert results_document(view)["summary"][1]["versus"] == versus
    assert "resampled" not in results_document(view)["runs"][0]


def test_six_seeds_have_a_sign_flip_p_with_holms_correction() -> None:
    methods = ("lora:rank=4", "capaboost_lora:rank=4,d=2,sparsity=0.5", "lora:rank=2")
    table = tables.rows(sample_view(seeds=tuple(range(6)), methods=methods))
    better, equal = (row["versus"] for row in table[1:])
    assert (better["p_sign_flip"], better["p_holm"]) == (2 / 64, 4 / 64)
    assert (equal["p_sign_flip"], equal["p_holm"]) == (1.0, 1.0)
    assert better["bootstrap95"] is None and better["note"] is None
    assert "0.0312 (0.0625)" in tables.to_markdown(table)
    assert "Holm" in tables.to_latex(table) and "sign-flip" in tables.to_markdown(table)
    assert tables.rows(sample_view(seeds=tuple(range(5)), methods=methods))[1]["versus"]["p_sign_flip"] is None


def test_ranks_say_what_they_are_of() -> None:
    assert "Rank:" not in tables.to_markdown(tables.rows(sample_view())), "results of before do not say it"
    view = sample_view()
    kinds = {METHODS[0]: "delta", METHODS[1]: "linear_map"}
    runs = [
        run.model_copy(update={"result": run.result.model_copy(update={"rank_of": kinds[run.label]})})
        for run in view.runs
        if run.result
    ]
    named = view.model_copy(update={"runs": tuple(runs)})
    table = tables.rows(named)
    for text in (tables.to_markdown(table), tables.to_latex(table), report_html(named)):
        assert f"of the weight update for {METHODS[0]}" in text
        assert f"of the linear map of an adapter or prefix for {METHODS[1]}" in text
    assert [row["rank_of"] for row in csv.DictReader(io.StringIO(tables.to_csv(table)))] == list(kinds.values())


def test_differences_are_over_all_runs_whatever_a_page_has_seen() -> None:
    view = sample_view()
    late = view.model_copy(update={"events": view.events[-3:]})
    assert tables.rows(late) == tables.rows(view)


def test_the_report_takes_the_chosen_reference_and_says_what_a_lock_changed() -> None:
    view = sample_view()
    spec = view.comparison.spec
    lock = BudgetLock(kind="rank", to=METHODS[0], asked=spec.methods, changes=("lora: <rank> 8 -> 4.",))
    locked = view.comparison.model_copy(update={"spec": spec.model_copy(update={"lock": lock})})
    page = report_html(view.model_copy(update={"comparison": locked}), METHODS[1])
    assert f"Difference to {METHODS[1]}" in page
    assert "Equal rank" in page and "lora: &lt;rank&gt; 8 -&gt; 4." in page
    assert "Budget lock" not in report_html(view)


def test_a_label_ends_no_comment_of_latex() -> None:
    text = tables.to_latex(tables.rows(renamed(sample_view(), "lora\n\\input{x}")))
    behind = text[text.index(r"\end{tabular}") :].splitlines()[1:]
    assert behind and all(line.startswith("% ") for line in behind)


def test_guides_are_r_and_d_times_r() -> None:
    configs = [dict(MethodSpec.parse(text).options) for text in (*METHODS, "head")]
    assert guides(configs) == {"r = 4": 4, "d·r = 8": 8}


def test_looks_differ_within_a_comparison() -> None:
    looks = [look(place) for place in range(35)]
    assert len({(each.colour, each.dash) for each in looks}) == 35
