"""What a parameter counts, as its shape and its masks tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from peft_core.methods._masks import WeightTransform
from peft_core.metrics.parameters import SEED_BITS, TensorCount


def tensor_count(
    name: str,
    site: str,
    role: str,
    parameter: Tensor,
    transform: WeightTransform | None = None,
    in_product: bool = False,
    differs: Mapping[str, Any] | None = None,
) -> TensorCount:
    """The entry of one tensor that trains and is stored, in full or as its masks keep it.

    Args:
        transform: says which of its values any mask keeps; None: no masks.
        differs: fields of the entry that shape and transform do not tell.
    """
    size, rows = parameter.numel(), parameter.shape[0]
    count = TensorCount(
        name=name,
        site=site,
        role=role,
        rows=rows,
        cols=size // rows,
        is_bias=parameter.dim() == 1,
        copies=transform.copies if transform else 1,
        kept=transform.kept if transform else size,
        nominal_kept=transform.nominal_kept if transform else float(size),
        multiplied=transform.multiplied if transform else size,
        seed_bits=SEED_BITS if transform is not None and transform.seeded else 0,
        in_product=in_product,
    )
    return replace(count, **(differs or {}))
