"""Budgets without weights, and the papers' printed figures from our own counts."""

from __future__ import annotations

import csv
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import pytest

from peft_core.budget import budget, published
from peft_core.records import InputError, MethodSpec
from peft_core.report.printed import agreement, page, quoted

FIGURES = Path(__file__).parents[1] / "assets" / "reference" / "parameter_figures.csv"
KEYS = {
    "model", "method", "config", "backbone_parameters", "trainable", "trainable_percent", "weights", "weights_percent",
    "head_parameters", "stored_parameters", "inference_parameters", "bit_level_storage_percent", "rank_bound",
    "adapter_flops_executed", "adapter_flops_nominal", "flops_vs_lora", "flops_reference", "sites",
}  # fmt: skip


def rows() -> list[dict[str, str]]:
    with FIGURES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


MATCHING = [row for row in rows() if row["status"] == "match"]
OTHERS = [row for row in rows() if row["status"] != "match"]


def name_of(row: dict[str, str]) -> str:
    return f"{row['figure']}-{row['model']}-{row['method']}"


@cache
def computed(index: int) -> float:
    return published(rows()[index])


def our_count(row: dict[str, str]) -> float:
    return computed(rows().index(row))


def test_every_line_of_the_file_is_tested():
    assert len(MATCHING) == 108
    assert [row["status"] for row in OTHERS].count("no") == 23 and len(OTHERS) == 26
    assert len({tuple(row.values()) for row in rows()}) == 134


@pytest.mark.parametrize("row", rows(), ids=name_of)
def test_our_count_is_the_computed_figure(row):
    assert our_count(row) == pytest.approx(float(row["computed"]), rel=2e-5)


@pytest.mark.parametrize("row", MATCHING, ids=name_of)
def test_a_printed_figure_comes_out(row):
    printed = Decimal(row["printed"])
    assert Decimal(repr(our_count(row))).quantize(printed, rounding=ROUND_HALF_UP) == printed


@pytest.mark.parametrize("row", OTHERS, ids=name_of)
def test_a_figure_that_does_not_come_out_is_quoted_as_printed_and_marked(row):
    shown, printed = quoted(row["printed"], row["unit"], our_count(row)), f"{row['printed']} {row['unit']}"
    if row["status"] == "truncated":
        assert shown == f"{printed} (cut off, not rounded: {float(row['computed']):.6g})"
    else:
        assert row["status"] == "no" and shown == f"{printed} (as printed; no counting gives it)"


def test_the_page_shows_every_figure():
    text = FIGURES.with_suffix(".md").read_text(encoding="utf-8")
    assert text == page((row, our_count(row)) for row in rows())
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(table) == 134
    for row, cells in zip(rows(), table, strict=True):
        assert cells[0] == row["figure"]
        assert f"{row['printed']} {row['unit']}".strip() in cells[4]
        assert ("no counting gives it" in cells[4]) == (row["status"] == "no")
        assert ("cut off" in cells[4]) == (row["status"] == "truncated")


@pytest.mark.parametrize(
    ("printed", "number", "expected"),
    [
        ("0.95", 0.9549, "match"),
        ("0.95", 0.945, "match"),
        ("0.95", 0.9599, "truncated"),
        ("0.95", 0.94499, "no"),
        ("0.95", 0.96, "no"),
        ("3", 3.4, "match"),
        ("0.100", 0.1004, "match"),
        ("0.100", 0.1009, "truncated"),
    ],
)
def test_a_figure_agrees_by_rounding_or_by_cutting_off(printed, number, expected):
    assert agreement(printed, number) == expected


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


def test_adalora_stores_its_target_and_trains_its_first_rank():
    """Six maps of 12 layers: r0 (in + out + 1) train, r_k (in + out) + r_k are stored (METHODS.md, section 0)."""
    entry = budget("deberta-v3-base", [MethodSpec.parse("adalora:target_rank=8")])[0]
    per_rank = 12 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert entry["trainable"] == 12 * per_rank + 72 * 12
    assert entry["stored_parameters"] == 8 * per_rank + 72 * 8 == 1_327_680
    assert entry["weights"] == 8 * per_rank == 1_327_104
    assert entry["bit_level_storage_percent"] == pytest.approx(100 * 1_327_680 / 183_831_552, rel=1e-4)
    boosted = budget("deberta-v3-base", [MethodSpec.parse("adalora:target_rank=8,boost.d=2")])[0]
    assert boosted["weights"] == 0.75 * entry["weights"]
    assert boosted["stored_parameters"] == pytest.approx(0.75 * 8 * per_rank + 72 * 8, rel=1e-3)


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


@pytest.mark.parametrize(("bottleneck", "per_task"), [(6, 0.00107704), (64, 0.0110721)])
def test_task_masks_count_as_the_paper_has_them(bottleneck, per_task):
    """ProPETL, table 2: eight tasks on T5, bit-level storage per task."""
    spec = MethodSpec.parse(f"propetl_pfeiffer:bottleneck={bottleneck}")
    assert budget("t5-base", [spec], tasks=8)[0]["bit_level_storage_percent"] / 8 == pytest.approx(per_task, rel=1e-5)
