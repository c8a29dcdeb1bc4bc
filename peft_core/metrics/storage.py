"""Bit-level storage: every stored value times its bits, one seed for all masks (METHODS.md, section 0)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peft_core.metrics.parameters import FLOAT_BITS, TensorCount


def stored_bits(counts: Sequence[TensorCount]) -> int:
    """Bits of a stored adapter, head apart: exact numbers of values, and the seed once."""
    return sum(count.stored_values * count.stored_bits for count in counts) + seed_bits(counts)


def nominal_stored_bits(counts: Sequence[TensorCount]) -> float:
    """Bits by formula, as papers print them: masks keep n (1 - s^d) values."""
    return sum(count.nominal_stored_values * count.stored_bits for count in counts) + seed_bits(counts)


def seed_bits(counts: Sequence[TensorCount]) -> int:
    """Bits of the seed that makes all masks of a method again; 0 without masks."""
    return max((count.seed_bits for count in counts), default=0)


def stored_bytes(counts: Sequence[TensorCount]) -> int:
    """Whole bytes of `stored_bits`."""
    return math.ceil(stored_bits(counts) / 8)


def bit_level_storage_percent(counts: Sequence[TensorCount], backbone_parameters: int) -> float:
    """`stored_bits` as a share of the backbone in 32-bit floats, in percent."""
    return 100 * stored_bits(counts) / (FLOAT_BITS * backbone_parameters)
