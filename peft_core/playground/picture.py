"""One look at a sketch: what is masked, what survives, the factors, ΔW, its spectrum and rank against the bound.

ΔW is never formed as a whole and never decomposed: spectrum and rank come from its factors (`metrics.rank`). Pictures
show the corner of at most `WINDOW` x `WINDOW` values, each value a byte.
"""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor

from peft_core.metrics.rank import Rank, rank_of_factors
from peft_core.playground.pair import Pair, draw_pair
from peft_core.playground.sketch import Sketch

WINDOW = 128
MOST_VALUES = 200
"""Singular values that are sent: as many as a chart can tell apart."""


def sketched(sketch: Sketch) -> dict[str, Any]:
    """All that the page shows of draw 0, as JSON.

    Returns: target d r; bound; rank (numerical, effective, stable); spectrum and plain, the singular values with and
    without masks, each index (from 1) and value; survivors by factor; parameters; pictures; why: a sentence.
    """
    pair = draw_pair(sketch)
    rank, plain = rank_of_factors(pair.left, pair.right), rank_of_factors(pair.b, pair.a)
    return {
        "used": sketch.model_dump() | {"sparsity": sketch.zeros},
        "target": sketch.d * sketch.rank,
        "side": min(sketch.shape),
        "bound": sketch.bound,
        "rank": {"numerical": rank.numerical, "effective": rank.effective, "stable": rank.stable},
        "why": why(sketch, rank.numerical, pair.empty()),
        "spectrum": _curve(rank),
        "plain": _curve(plain),
        "survivors": {role: _survivors(sketch, role, masks) for role, masks in _by_role(pair).items()},
        "parameters": _parameters(sketch, pair),
        "pictures": _pictures(pair),
    }


def why(sketch: Sketch, rank: int, empty: float) -> str:
    """What decides the rank of this draw, in one sentence.

    empty: directions that masks leave without any value in A or in B.
    """
    target, side, r = sketch.d * sketch.rank, min(sketch.shape), sketch.rank
    if sketch.d == 1:
        return "One branch is one product, so its rank is at most r, masked or not."
    if sketch.boost is None or sketch.zeros == 0:
        return f"Nothing is masked, so the sum is d times one product and has its rank, at most r = {r}."
    if sketch.masks == "same":
        return f"All branches have the same mask, so the sum is d times one product and has its rank, at most r = {r}."
    if sketch.sides != "both":
        other = "B" if sketch.sides == "A" else "A"
        return f"Every branch has the same {other}, so the sum is still one product of rank at most r = {r}."
    if rank == target:
        return "The masked copies of every direction point in different directions: rank d·r, as the theorem says."
    if target > side and rank == side:
        layer = f"{sketch.out_features} x {sketch.in_features}"
        return f"The theorem's equality stops here: d·r = {target}, but no {layer} matrix has more rank than {side}."
    if empty > 0:
        return (
            f"The theorem's equality does not hold: masks leave {empty:g} of {target} directions without any value in A"
            " or in B, and these add nothing."
        )
    return (
        "The theorem's equality does not hold: the few values kept of some directions lie in the same rows or columns,"
        " so their masked copies are combinations of others."
    )


def _by_role(pair: Pair) -> dict[str, Tensor]:
    return {"A": pair.masks_a, "B": pair.masks_b}


def _survivors(sketch: Sketch, role: str, masks: Tensor) -> dict[str, Any]:
    """Values that some mask keeps: measured, and the share to be expected (1 - s^d with independent masks)."""
    boost = sketch.boost if role in sketch.masked else None
    total = masks[0].numel()
    kept = int(masks.any(0).sum()) if boost else total
    return {"kept": kept, "total": total, "share": kept / total, "expected": boost.nominal_share() if boost else 1.0}


def _parameters(sketch: Sketch, pair: Pair) -> dict[str, Any]:
    """kept: values that some mask keeps, what is trained and stored; equal_rank: of an unmasked pair of that many."""
    kept = sum(_survivors(sketch, role, masks)["kept"] for role, masks in _by_role(pair).items())
    side, layer = sum(sketch.shape), sketch.shape[0] * sketch.shape[1]
    return {"kept": kept, "dense": sketch.rank * side, "equal_rank": kept / side, "layer": layer}


def _curve(rank: Rank) -> dict[str, list[float]]:
    """The singular values above rounding, thinned to what a chart shows; the first and the last always."""
    values = rank.singular_values[: rank.numerical]
    if not len(values):
        return {"index": [], "value": []}
    places = torch.linspace(0, len(values) - 1, min(len(values), MOST_VALUES)).round().long()
    return {"index": (places + 1).tolist(), "value": [float(f"{value:.6g}") for value in values[places].tolist()]}


def _pictures(pair: Pair) -> dict[str, Any]:
    """Byte pictures: masks with a bit for each branch, values from -127 to 127 of the largest. B lies on its side."""
    a, b = pair.a[:, :WINDOW], pair.b[:WINDOW].T
    corner = pair.left[:WINDOW] @ pair.right[:, :WINDOW]
    out_features, in_features, rank = len(pair.b), pair.a.shape[1], len(pair.a)
    return {
        "masks_a": _bytes(_bits(pair.masks_a[:, :, :WINDOW]), (rank, in_features)),
        "masks_b": _bytes(_bits(pair.masks_b[:, :WINDOW].mT), (rank, out_features)),
        "a": _bytes(_signed(a), (rank, in_features)),
        "b": _bytes(_signed(b), (rank, out_features)),
        "delta": _bytes(_signed(corner), (out_features, in_features)),
    }


def _bits(masks: Tensor) -> Tensor:
    """bool (d, rows, cols) to uint8 (rows, cols), the first branch in the lowest bit."""
    places = 2 ** torch.arange(len(masks), dtype=torch.uint8)
    return (masks * places.view(-1, 1, 1)).sum(0, dtype=torch.uint8)


def _signed(values: Tensor) -> Tensor:
    """To uint8: 128 is zero, 1 and 255 are the largest size."""
    largest = values.abs().max().clamp_min(1e-300)
    return (values / largest * 127).round().add(128).to(torch.uint8)


def _bytes(values: Tensor, whole: tuple[int, int]) -> dict[str, Any]:
    """whole: (rows, cols) of what the picture is the corner of."""
    rows, cols = values.shape
    data = base64.b64encode(values.contiguous().numpy().tobytes()).decode()
    return {"rows": rows, "cols": cols, "of": list(whole), "data": data}
