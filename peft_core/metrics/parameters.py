"""How many values a method trains and keeps, from one entry per tensor (METHODS.md, section 0, Counting)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FLOAT_BITS = 32
SEED_BITS = 64


@dataclass(frozen=True)
class TensorCount:
    """What one trained tensor counts.

    name: unique within the method. site: the adapted site or place (shared prototypes: their own name). role: A, B,
    U, V, bias and the like. rows, cols: shape, cols = 1 for a vector.
    copies: parallel masked uses d of the tensor. kept: exact number of values that some mask keeps. nominal_kept: the
    same by formula, n (1 - s^d). multiplied: sum over the copies of their masks' non-zeros, what nominal FLOPs count.
    stored_bits: bits of one kept value (a binary mask: 1). seed_bits: bits of the seed that makes the masks again; one
    seed serves a whole method. in_product: True for a matrix that multiplies every token.
    trained, stored: False for a tensor that only makes another one while training, and for the one that is made.
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
    trained: bool = True
    stored: bool = True
    extra_flops: int = 0


def trainable_parameters(counts: Iterable[TensorCount]) -> int:
    """Values that train: exact, biases included, head apart. A weight that no mask keeps does not train."""
    return sum(count.kept for count in counts if count.trained)


def weights(counts: Iterable[TensorCount]) -> float:
    """The papers' figure: biases left out, masks by formula, a tensor that others make counted and not those."""
    return sum(count.nominal_kept for count in counts if count.stored and not count.is_bias)


def weights_and_biases(counts: Iterable[TensorCount]) -> float:
    """Biases included, masks by formula."""
    return sum(count.nominal_kept for count in counts if count.stored)


def stored_parameters(counts: Iterable[TensorCount]) -> int:
    """Values that a stored adapter holds as numbers; binary masks count in bits only (`storage`)."""
    return sum(count.kept for count in counts if count.stored and count.stored_bits > 1)
