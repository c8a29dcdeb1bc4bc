"""Budgets without weights, and the papers' printed figures from our own counts."""

from __future__ import annotations

import csv
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

from peft_core.budget import budget, published
from peft_core.methods import list_methods
from peft_core.records import InputError, MethodSpec

FIGURES = Path(__file__).parents[1] / "assets" / "reference" / "parameter_figures.csv"
KEYS = {
    "model", "method", "config", "backbone_parameters", "trainable", "trainable_percent", "weights", "weights_percent",
    "head_parameters", "stored_parameters", "inference_parameters", "bit_level_storage_percent", "rank_bound",
    "adapter_flops_executed", "adapter_flops_nominal", "flops_vs_lora", "flops_reference", "sites",
}  # fmt: skip


def covered() -> list[dict[str, str]]:
    """The lines that match when rounded and whose method is here."""
    ids = {method.id for method in list_methods()} | {""}
    with FIGURES.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["status"] == "match" and row["method"].split(":")[0] in ids]


def name_of(row: dict[str, str]) -> str:
    return f"{row['figure']}-{row['model']}-{row['method']}"


@pytest.mark.parametrize("row", covered(), ids=name_of)
def test_a_printed_figure_comes_out(row):
    computed = published(row)
    assert computed == pytest.approx(float(row["computed"]), rel=2e-5)
    printed = Decimal(row["printed"])
    assert Decimal(repr(computed)).quantize(printed, rounding=ROUND_HALF_UP) == printed


def test_the_file_is_covered():
    assert len(covered()) >= 60


def test_an_entry_holds_what_the_command_promises():
    methods = [MethodSpec.parse("capaboost_lora:rank=8,d=2,sparsity=0.5"), MethodSpec(id="head")]
    entry, head = budget("roberta-base", methods)
    assert set(entry) == KEYS
    assert entry["backbone_parameters"] == 124_055_040
    assert entry["weights"] == 0.75 * 12 * 2 * 8 * 1536
    assert entry["trainable"] == sum(site["trainable"] for site in entry["sites"])
    assert entry["trainable"] == pytest.approx(entry["weights"], rel=0.01)
    assert entry["rank_bound"] == 16 and len(entry["sites"]) == 24
    assert entry["adapter_flops_executed"] == 2 * entry["adapter_flops_nominal"] == 2 * 24 * 2 * 8 * 1536
    assert entry["flops_vs_lora"] == 1.0 and entry["inference_parameters"] == 0
    assert entry["head_parameters"] == 768 * 768 + 768 + 2 * 768 + 2
    assert head["trainable"] == 0 and head["flops_vs_lora"] is None


def test_flops_are_measured_against_the_method_that_is_named():
    methods = [MethodSpec.parse("lora:rank=16")]
    assert budget("roberta-base", methods, MethodSpec.parse("lora:rank=8"))[0]["flops_vs_lora"] == 2.0


@pytest.mark.parametrize(
    ("model", "method", "field"),
    [
        ("nothing", "lora", "model"),
        ("roberta-base", "nothing", "method"),
        ("roberta-base", "lora:rank=0", "lora.rank"),
        ("roberta-base", "lora:rank=769", "lora.rank"),
        ("roberta-base", "capaboost_lora:sparsity=1", "capaboost_lora.sparsity"),
        ("roberta-base", "capaboost_lora:rank=6,masks=2:4", "capaboost_lora.masks"),
        ("t5-base", "bitfit", "method"),
    ],
)
def test_what_does_not_fit_is_named(model, method, field):
    with pytest.raises(InputError) as error:
        budget(model, [MethodSpec.parse(method)])
    assert error.value.field == field
