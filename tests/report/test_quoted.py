"""Quoted figures: complete, of our methods, marked, and never among measured ones."""

from __future__ import annotations

import json

import pytest

from peft_core.cli import main
from peft_core.methods import resolve
from peft_core.records import InputError, MethodSpec, QuotedFigure
from peft_core.report.figures import bar_figure, line_figure, pareto_figure
from peft_core.report.pareto import fronts
from peft_core.report.quoted import chosen, quoted_figures, quoted_rows
from peft_core.report.tables import rows, summary, to_csv, to_json, to_latex, to_markdown
from tests.report.sample import sample_view


def test_every_printed_result_is_there_once():
    figures = quoted_figures()
    assert len(figures) == 1003
    assert {figure.paper for figure in figures} == {"capaboost", "propetl", "increlora", "rm_lora"}
    keys = [(f.paper, f.table, f.printed, f.model, f.task, f.metric, *sorted(f.about.items())) for f in figures]
    assert len(set(keys)) == len(keys)


def test_each_is_of_a_method_that_we_have_or_says_that_we_have_none():
    without = {figure.printed for figure in quoted_figures() if figure.method is None}
    assert without == {"NOAH", "Hyperformer++  [Multi-Task Hypernetworks]"}
    for method in {figure.method for figure in quoted_figures() if figure.method}:
        resolve(MethodSpec.parse(method))


@pytest.mark.parametrize(
    ("paper", "table", "printed", "method"),
    [
        ("capaboost", "5", "CAPABOOST-LoRA (d=4)", "capaboost_lora:d=4"),
        ("capaboost", "16", "2:4 Sparsity CAPABOOST-LoRA", "capaboost_lora:masks=2:4"),
        ("propetl", "1", "Prefix (l=64)", "prefix:length=64"),
        ("propetl", "2", "PROPETL -Adapter (bn=6) [Multi-Task Training]", "propetl_pfeiffer:bottleneck=6"),
        ("propetl", "4", "only mask, same k% (LoRA)", "propetl_lora:share=false"),
        ("increlora", "1", "LoRA -r=2", "lora:rank=2"),
        (
            "increlora",
            "2",
            "IncreLoRA orthogonal=no advance_learning=no restart_warmup=no",
            "increlora:advance_learning=false,restart_warmup=false,orthogonality=0",
        ),
        ("rm_lora", "5", "GM-LoRA R=80", "gm_lora:rank=80"),
    ],
)
def test_printed_names_become_ours(paper, table, printed, method):
    found = [figure for figure in chosen(paper, table) if figure.printed == printed]
    assert found and {figure.method for figure in found} == {method}


def test_what_is_shown_carries_paper_and_table():
    shown = quoted_rows(chosen("capaboost", "2", "capaboost_lora"))
    assert shown and {row["source"] for row in shown} == {"quoted: CapaBoost, Table 2"}
    assert next(row for row in shown if row["task"] == "glue/cola")["score"] == 63.74


@pytest.mark.parametrize("show", [to_csv, to_json, to_markdown, to_latex])
@pytest.mark.parametrize("stored", [False, True])
def test_no_table_of_measured_rows_takes_a_quoted_one(show, stored):
    measured = rows(sample_view())
    assert show(measured)
    quoted = quoted_figures()[0]
    with pytest.raises(TypeError, match="quoted"):
        show([*measured, quoted.model_dump() if stored else quoted])


def test_no_figure_of_measured_rows_takes_a_quoted_one():
    quoted = quoted_figures()[0]
    with pytest.raises(TypeError, match="quoted"):
        bar_figure([quoted], "trainable", "")
    with pytest.raises(TypeError, match="quoted"):
        pareto_figure([quoted], {}, "trainable", "mean")
    with pytest.raises(TypeError, match="quoted"):
        fronts([*rows(sample_view()), quoted.model_dump()])
    with pytest.raises(TypeError, match="quoted"):
        line_figure([quoted], "", "", "")
    with pytest.raises(TypeError, match="quoted"):
        summary(quoted)


def test_a_quoted_figure_is_nothing_else():
    with pytest.raises(ValueError, match="quoted"):
        QuotedFigure(
            kind="measured", paper="capaboost", table="2", printed="LoRA", model="m", task="t", metric="a", score=1
        )


def test_the_command_lists_them_with_their_marks(capsys):
    assert main(["quoted", "--paper", "capaboost", "--table", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 12 and {row["source"] for row in found} == {"quoted: CapaBoost, Table 1"}
    assert all(row["kind"] == "quoted" and row["metric"] == "rank_of_delta_w" for row in found)
    assert main(["quoted", "--method", "nothing"]) == 2
    with pytest.raises(InputError, match="paper"):
        chosen("peft")
