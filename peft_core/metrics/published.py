"""The papers' ways of counting, so that their printed figures come out of our counts.

Percentages divide by the backbone with embeddings, without pooler and head. `weights` are those that train, vectors
left out; `stored` is what is left after training, gates and biases included; `flat` the same without them. Masked
tensors count by formula, n (1 - s^d). Binary masks are the entries whose values store as one bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from peft_core.metrics.parameters import TensorCount, weights, weights_and_biases
from peft_core.metrics.storage import nominal_stored_bits
from peft_core.records import InputError

T = TypeVar("T")
CONVENTIONS = (
    "all",
    "all_per_task_of_8",
    "backbone",
    "backbone_with_pooler",
    "bls",
    "bls_per_task_of_8",
    "factor_of_lora_r8",
    "flat",
    "masks_on_biases",
    "stored",
    "total_rank",
    "weights",
    "with_classification_head",
    "with_span_head",
)
TASKS = 8


def published(
    convention: str,
    unit: str,
    counts: Sequence[TensorCount],
    *,
    backbone_parameters: int,
    hidden_size: int,
    reference: Sequence[TensorCount] | None = None,
    total_rank: int | None = None,
) -> float:
    """A figure as a paper counts it.

    Args:
        convention: one of `CONVENTIONS`.
        unit: "%" of the backbone, "M" millions, "x" or "" as it is.
        counts: the method's tensors; empty for the backbone's own size.
        backbone_parameters: the divisor P, pooler and head left out.
        hidden_size: width of the pooler and of the papers' heads.
        reference: LoRA's tensors at rank 8 on the same sites, for `factor_of_lora_r8`.
        total_rank: sum of the ranks of all sites at the end, for `total_rank`.

    Raises:
        InputError: an unknown convention or unit, or a figure that the given values cannot make.
    """
    if convention in ("bls", "bls_per_task_of_8"):
        if unit != "%":
            raise InputError("unit", unit, f"{convention} is a percentage")
        bits = nominal_stored_bits(counts)
        value = (bits + TASKS * _prototype(counts)) / TASKS / 32 if convention.endswith("of_8") else bits / 32
    elif convention == "factor_of_lora_r8":
        value = _trained(counts) / _trained(_given(reference, "reference", convention))
    elif convention == "total_rank":
        value = float(_given(total_rank, "total_rank", convention))
    else:
        value = _values(convention, counts, backbone_parameters, hidden_size)
    return _in_unit(value, unit, backbone_parameters)


def _values(
    convention: str,
    counts: Sequence[TensorCount],
    backbone_parameters: int,
    hidden_size: int,
) -> float:
    """A number of parameters by one of the plain conventions."""
    pooler, two_outputs = hidden_size * (hidden_size + 1), 2 * (hidden_size + 1)
    match convention:
        case "weights":
            return _trained(counts)
        case "flat":
            return weights(counts)
        case "all" | "stored":
            return weights_and_biases(counts)
        case "all_per_task_of_8":
            return (weights_and_biases(counts) + TASKS * _prototype(counts)) / TASKS
        case "masks_on_biases":
            return weights_and_biases(counts) + _mask_sets(counts) * _biases(counts)
        case "with_classification_head":
            return _trained(counts) + pooler + two_outputs
        case "with_span_head":
            return _trained(counts) + two_outputs
        case "backbone":
            return float(backbone_parameters)
        case "backbone_with_pooler":
            return float(backbone_parameters + pooler)
    raise InputError("convention", convention, f"it must be one of {', '.join(CONVENTIONS)}")


def _in_unit(value: float, unit: str, backbone_parameters: int) -> float:
    if unit == "%":
        return 100 * value / backbone_parameters
    if unit == "M":
        return value / 1e6
    if unit in ("x", ""):
        return value
    raise InputError("unit", unit, "it must be %, M, x or empty")


def _trained(counts: Sequence[TensorCount]) -> float:
    """Weights that train, by formula: before anything is pruned."""
    return sum(count.nominal_kept for count in counts if not count.is_bias)


def _biases(counts: Sequence[TensorCount]) -> float:
    return weights_and_biases(counts) - weights(counts)


def _mask_scores(counts: Sequence[TensorCount]) -> float:
    return sum(count.nominal_kept for count in counts if count.stored_bits == 1)


def _prototype(counts: Sequence[TensorCount]) -> float:
    """Weights that learned masks lie on, n: a task mask adds as many scores. 0 for a method without such masks."""
    if not _mask_scores(counts):
        return 0.0
    return weights(count for count in counts if count.stored_bits > 1)


def _mask_sets(counts: Sequence[TensorCount]) -> float:
    """How many learned masks lie on one prototype: layers, for ProPETL."""
    scores = _mask_scores(counts)
    return scores / _prototype(counts) if scores else 0.0


def _given(value: T | None, name: str, convention: str) -> T:
    if value is None:
        raise InputError(name, value, f"the convention {convention} needs it")
    return value
