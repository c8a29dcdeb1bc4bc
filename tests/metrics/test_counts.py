"""Parameters, storage and FLOPs of tensors counted by hand; the papers' conventions on the papers' figures."""

from __future__ import annotations

import pytest

from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.metrics.parameters import (
    NOT_STORED,
    TensorCount,
    stored_parameters,
    trainable_parameters,
    weights,
    weights_and_biases,
)
from peft_core.metrics.published import CONVENTIONS, published
from peft_core.metrics.storage import bit_level_storage_percent, nominal_stored_bits, stored_bits, stored_bytes
from peft_core.records import InputError

ROBERTA, DEBERTA, T5 = 124_055_040, 183_831_552, 222_903_552


def tensor(name: str, rows: int, cols: int, d: int = 1, sparsity: float = 0.0, **changes: object) -> TensorCount:
    size = rows * cols
    values: dict[str, object] = {
        "name": name,
        "site": name.partition(".")[0],
        "role": name.rpartition(".")[2],
        "rows": rows,
        "cols": cols,
        "is_bias": cols == 1,
        "copies": d,
        "kept": round(size * (1 - sparsity**d)),
        "nominal_kept": size * (1 - sparsity**d),
        "multiplied": round(size * d * (1 - sparsity)),
        "seed_bits": 64 if sparsity else 0,
        "in_product": cols != 1,
    }
    return TensorCount(**(values | changes))  # type: ignore[arg-type]


def lora(rank: int, sites: int, inputs: int = 768, outputs: int = 768, **boost: float) -> list[TensorCount]:
    return [
        entry
        for site in range(sites)
        for entry in (
            tensor(f"{site}.A", rank, inputs, **boost),  # type: ignore[arg-type]
            tensor(f"{site}.B", outputs, rank, **boost),  # type: ignore[arg-type]
        )
    ]


def adapter(bottleneck: int, places: int, hidden: int = 768) -> list[TensorCount]:
    return [
        entry
        for place in range(places)
        for entry in (
            tensor(f"{place}.V", bottleneck, hidden),
            tensor(f"{place}.U", hidden, bottleneck),
            tensor(f"{place}.b_V", bottleneck, 1),
            tensor(f"{place}.b_U", hidden, 1),
        )
    ]


def propetl_adapter(bottleneck: int, layers: int) -> list[TensorCount]:
    """One prototype and, per layer, scores of its two weights: trained as numbers, stored as one bit."""
    scores = [
        tensor(f"{layer}.s_{role}", *shape, stored_bits=1, in_product=False)
        for layer in range(layers)
        for role, shape in (("V", (bottleneck, 768)), ("U", (768, bottleneck)))
    ]
    return adapter(bottleneck, 1) + scores


def test_an_adapter_counts_two_matrices_and_two_biases() -> None:
    counts = adapter(64, places=12)
    assert trainable_parameters(counts) == 12 * (2 * 64 * 768 + 64 + 768)
    assert weights(counts) == 12 * 2 * 64 * 768
    assert weights_and_biases(counts) == stored_parameters(counts) == trainable_parameters(counts)
    assert stored_bits(counts) == 32 * trainable_parameters(counts)


def test_masks_keep_what_some_branch_uses_and_one_seed_serves_all() -> None:
    counts = lora(8, sites=2, inputs=10, outputs=6, d=2, sparsity=0.5)
    assert trainable_parameters(counts) == 0.75 * 2 * 8 * 16
    assert stored_bits(counts) == 32 * 192 + 64 == nominal_stored_bits(counts)
    assert stored_bytes(counts) == 4 * 192 + 8
    assert bit_level_storage_percent(counts, 6144) == pytest.approx(100 * (32 * 192 + 64) / (32 * 6144))


def test_binary_masks_are_stored_as_bits() -> None:
    counts = propetl_adapter(64, layers=12)
    assert stored_parameters(counts) == 2 * 64 * 768 + 64 + 768
    assert stored_bits(counts) == 32 * (2 * 64 * 768 + 64 + 768) + 12 * 2 * 64 * 768


def test_what_trains_and_what_is_stored_may_differ() -> None:
    averaged = [tensor("0.V.0", 4, 32), tensor("0.V.1", 4, 32, **NOT_STORED)]
    chosen = [tensor("0.V", 4, 32, stored=39, nominal_stored=38.4), tensor("0.s", 4, 32, stored_bits=1)]
    whole = {"kept": 0, "nominal_kept": 0.0, "stored": 128, "nominal_stored": 128.0}
    made = [tensor("0.W", 2, 32, **NOT_STORED), tensor("0.P", 4, 32, **whole)]
    figures = ((averaged, 256, 128, 128, 32 * 128), (chosen, 256, 166.4, 39, 32 * 39 + 128), (made, 64, 128, 128, 4096))
    for counts, trained, left, numbers, bits in figures:
        assert trainable_parameters(counts) == trained
        assert weights(counts) == weights_and_biases(counts) == left
        assert stored_parameters(counts) == numbers and stored_bits(counts) == bits
    assert nominal_stored_bits(chosen) == pytest.approx(32 * 38.4 + 128)


def test_flops_executed_are_dense_and_nominal_ones_count_non_zeros() -> None:
    plain, boosted = lora(8, sites=1), lora(8, sites=1, d=4, sparsity=0.5)
    assert adapter_flops_executed(plain) == adapter_flops_nominal(plain) == 2 * 8 * (768 + 768)
    assert adapter_flops_executed(boosted) == 4 * adapter_flops_executed(plain)
    assert adapter_flops_nominal(boosted) == 2 * adapter_flops_nominal(plain)
    assert adapter_flops_executed(adapter(64, places=1)) == 4 * 64 * 768


@pytest.mark.parametrize(
    ("convention", "unit", "counts", "backbone", "printed"),
    [
        ("weights", "%", lora(32, 24), ROBERTA, 0.950907),
        ("weights", "%", lora(32, 24, d=2, sparsity=0.5), ROBERTA, 0.71318),
        ("weights", "M", adapter(64, 12), DEBERTA, 1.17965),
        ("all", "M", adapter(32, 12), DEBERTA, 0.599424),
        ("flat", "%", lora(32, 24), ROBERTA, 0.950907),
        ("stored", "%", lora(32, 24), ROBERTA, 0.950907),
        ("masks_on_biases", "%", propetl_adapter(64, 12), ROBERTA, 1.03887),
        ("all", "%", propetl_adapter(64, 12), ROBERTA, 1.03082),
        ("bls", "%", propetl_adapter(64, 12), ROBERTA, 0.109629),
        ("all_per_task_of_8", "%", adapter(64, 24), T5, 0.133425),
        ("all_per_task_of_8", "%", propetl_adapter(64, 24), T5, 0.181966),
        ("bls_per_task_of_8", "%", propetl_adapter(64, 24), T5, 0.0110721),
        ("backbone", "M", [], DEBERTA, 183.832),
        ("backbone_with_pooler", "M", [], ROBERTA, 124.646),
    ],
)
def test_conventions_give_the_papers_figures(
    convention: str, unit: str, counts: list[TensorCount], backbone: int, printed: float
) -> None:
    value = published(convention, unit, counts, backbone_parameters=backbone, hidden_size=768)
    assert value == pytest.approx(printed, rel=1e-5)


def test_heads_are_added_where_a_paper_counts_them() -> None:
    counts = lora(4, 48) + lora(4, 24, inputs=768, outputs=3072)
    given = {"backbone_parameters": DEBERTA, "hidden_size": 768}
    assert published("with_classification_head", "M", counts, **given) == pytest.approx(1.25568, rel=1e-5)  # type: ignore[arg-type]
    assert published("with_span_head", "M", counts, **given) == pytest.approx(0.66509, rel=1e-5)  # type: ignore[arg-type]


def test_figures_against_a_reference() -> None:
    given = {"backbone_parameters": ROBERTA, "hidden_size": 768}
    counts = lora(16, 24, d=4, sparsity=0.5)
    factor = published("factor_of_lora_r8", "x", counts, reference=lora(8, 24), **given)  # type: ignore[arg-type]
    assert factor == pytest.approx(1.875)
    assert published("total_rank", "", counts, total_rank=576, **given) == 576  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs it"):
        published("total_rank", "", counts, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(("convention", "unit"), [("guess", "%"), ("weights", "k"), ("bls", "M")])
def test_unknown_conventions_and_units_are_refused(convention: str, unit: str) -> None:
    with pytest.raises(InputError):
        published(convention, unit, lora(8, 2), backbone_parameters=100, hidden_size=768)


def test_every_convention_of_the_reference_is_known() -> None:
    given = {"backbone_parameters": ROBERTA, "hidden_size": 768, "reference": lora(8, 1), "total_rank": 8}
    for convention in CONVENTIONS:
        assert published(convention, "%", lora(8, 1), **given) > 0  # type: ignore[arg-type]
