"""How many values a method trains and keeps, from one entry per tensor (METHODS.md, section 0, Counting)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FLOAT_BITS = 32
SEED_BITS = 64


@dataclass(frozen=True)
class TensorCount:
    """What one tensor that trains or is stored counts.

    name: unique within the method. site: the adapted site or place (shared prototypes: their own name). role: A, B,
    U, V, bias and the like. rows, cols: shape, cols = 1 for a vector.
    copies: masked uses of the tensor, parallel (d) or one a layer that shares it. kept: exact number of values that
    train: those that some mask keeps; 0 for a tensor that others make. nominal_kept: the same by formula, n (1 - s^d).
    multiplied: sum over the copies of their masks' non-zeros, what nominal FLOPs count.
    stored: how many values a stored adapter holds, where that is not kept: fewer where a learned mask chooses among
    them, none where the tensor only serves training (`NOT_STORED`: an expert beside the average, what makes a prefix),
    all of one that others make. nominal_stored: the same by formula, where that is not nominal_kept.
    stored_bits: bits of one stored value (a binary mask: 1). seed_bits: bits of the seed that makes the masks again;
    one seed serves a whole method. in_product: True for a matrix that multiplies every token.
    readers: heads of queries that a prefix's value meets, each a product (grouped-query attention).
    extra_flops: FLOPs per token and forward that it costs in other ways than as a product.
    """

    name: str
    site: str
    role: str
    rows: int
    cols: int
    is_bias: bool
    copies: int
    kept: int
    nominal_kept: float
    multiplied: int
    stored_bits: int = FLOAT_BITS
    seed_bits: int = 0
    in_product: bool = True
    readers: int = 1
    extra_flops: int = 0
    stored: int | None = None
    nominal_stored: float | None = None

    @property
    def stored_values(self) -> int:
        """Values that a stored adapter holds of it."""
        return self.kept if self.stored is None else self.stored

    @property
    def nominal_stored_values(self) -> float:
        """The same by formula."""
        return self.nominal_kept if self.nominal_stored is None else self.nominal_stored


NOT_STORED = {"stored": 0, "nominal_stored": 0.0}
"""Fields of a tensor that trains and that a stored adapter does without."""


def trainable_parameters(counts: Iterable[TensorCount]) -> int:
    """Values that train: exact, biases included, head apart. A weight that no mask keeps does not train."""
    return sum(count.kept for count in counts)


def weights(counts: Iterable[TensorCount]) -> float:
    """The papers' figure: what is left after training, biases left out, by formula; every value of a mask is one."""
    return weights_and_biases(count for count in counts if not count.is_bias)


def weights_and_biases(counts: Iterable[TensorCount]) -> float:
    """The same with biases."""
    return sum(count.nominal_stored_values for count in counts)


def stored_parameters(counts: Iterable[TensorCount]) -> int:
    """Values that a stored adapter holds as numbers; binary masks count in bits only (`storage`)."""
    return sum(count.stored_values for count in counts if count.stored_bits > 1)


def inference_parameters(counts: Iterable[TensorCount], mergeable: bool) -> int:
    """Values beside the backbone's when a run is used: none where the update merges into the weights."""
    return 0 if mergeable else stored_parameters(counts)
