"""Rank of a weight update, from its factors: QR of both, SVD of the small core in float64. ΔW is never formed.

With left = Q1 R1 and rightᵀ = Q2 R2, left @ right = Q1 (R1 R2ᵀ) Q2ᵀ has the singular values of the small core R1 R2ᵀ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peft_core.records import RunFailure


@dataclass(frozen=True)
class Rank:
    """Three notions of rank, and what they come from.

    numerical: singular values above `tolerance`·σ_max, by default max(m, n)·eps of float64, as
    torch.linalg.matrix_rank counts them on ΔW in float64.
    effective: exp of the entropy of σ / Σσ (Roy and Vetterli 2007). stable: ||ΔW||_F² / ||ΔW||_2².
    norm: ||ΔW||_F. singular_values: float64, falling, at most min(m, n). A zero update has rank 0 in all three.
    orthogonality: ||ΔWΔWᵀ - I||_F² with I of the output's size m (RM-LoRA, Table 5), at least m - rank.
    """

    numerical: int
    effective: float
    stable: float
    norm: float
    orthogonality: float
    tolerance: float
    singular_values: Tensor


def rank_of_factors(left: Tensor, right: Tensor, tolerance: float | None = None) -> Rank:
    """Rank of left @ right: `ranks_of_factors` of one pair."""
    return ranks_of_factors([(left, right)], tolerance)[0]


def rank_of_matrix(delta: Tensor, tolerance: float | None = None) -> Rank:
    """Rank of a dense difference (out, in): `ranks_of_matrices` of one."""
    return ranks_of_matrices([delta], tolerance)[0]


def ranks_of_factors(pairs: Sequence[tuple[Tensor, Tensor]], tolerance: float | None = None) -> list[Rank]:
    """Ranks of left @ right, pair by pair. Pairs of equal shapes are decomposed together.

    Args:
        pairs: left (out, R), where R may exceed the smaller side of the update, and right (R, in).
        tolerance: share of the largest singular value below which one counts as zero; None: max(out, in)·eps with the
            eps of float64. The factors may have been trained in float32, but their product is exact to float64, so a
            direction that float32 training left small still is a direction.

    Raises:
        RunFailure: a factor holds a value that is not finite.
        ValueError: shapes that do not fit.
    """
    alike: defaultdict[tuple[torch.Size, torch.Size], list[int]] = defaultdict(list)
    for place, (left, right) in enumerate(pairs):
        if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[0]:
            raise ValueError(f"factors of shapes {tuple(left.shape)} and {tuple(right.shape)} have no product")
        alike[left.shape, right.shape].append(place)
    found: dict[int, Rank] = {}
    for (left_shape, right_shape), places in alike.items():
        shape = (left_shape[0], right_shape[1])
        left, right = (_together([pairs[place][side] for place in places]) for side in (0, 1))
        found |= zip(places, _ranks(_product_values(left, right), shape, tolerance), strict=True)
    return [found[place] for place in range(len(pairs))]


def ranks_of_matrices(deltas: Sequence[Tensor], tolerance: float | None = None) -> list[Rank]:
    """Ranks of dense differences (out, in), from their singular values alone; `tolerance` as in `ranks_of_factors`.

    Raises:
        RunFailure: one holds a value that is not finite.
    """
    found = []
    for delta in deltas:
        whole, scale = _scaled(delta.detach().unsqueeze(0))
        values = torch.linalg.svdvals(whole) * scale if bool(whole.any()) else whole.new_zeros(1, min(delta.shape))
        found += _ranks(values, (delta.shape[0], delta.shape[1]), tolerance)
    return found


def rank_of_spectrum(singular_values: Tensor, shape: tuple[int, int], tolerance: float | None = None) -> Rank:
    """The ranks of a matrix of this shape from its singular values, float64 and falling."""
    return _ranks(singular_values.unsqueeze(0), shape, tolerance)[0]


def _product_values(left: Tensor, right: Tensor) -> Tensor:
    """Singular values (n, k) of left (n, out, R) @ right (n, R, in)."""
    if left.numel() == 0 or right.numel() == 0:
        return torch.zeros(len(left), 0, dtype=torch.float64, device=left.device)
    (left, left_scale), (right, right_scale) = _scaled(left), _scaled(right)
    cores = _triangle(left) @ _triangle(right.mT).mT
    values = torch.linalg.svdvals(cores) * (left_scale * right_scale)
    return values[:, : min(left.shape[1], right.shape[2])]


def _ranks(values: Tensor, shape: tuple[int, int], tolerance: float | None) -> list[Rank]:
    """Ranks of matrices of one shape from their singular values (n, k)."""
    share = tolerance if tolerance is not None else max(shape) * torch.finfo(torch.float64).eps
    values = values.cpu()
    if values.shape[1] == 0:
        return [_zero(shape, share)] * len(values)
    largest = values[:, :1]
    relative = values / largest.where(largest > 0, 1.0)
    probabilities = relative / relative.sum(1, keepdim=True).clamp_min(1.0)
    squares = values.square()
    columns = (
        (relative > share).sum(1),
        torch.special.entr(probabilities).sum(1).exp(),
        relative.square().sum(1),
        largest.squeeze(1) * relative.square().sum(1).sqrt(),
        (squares - 1).square().sum(1) + (shape[0] - values.shape[1]),
    )
    rows = zip(*(column.tolist() for column in columns), values, strict=True)
    return [
        Rank(numerical, effective, stable, norm, orthogonality, share, spectrum)
        if spectrum[0] > 0
        else _zero(shape, share)
        for numerical, effective, stable, norm, orthogonality, spectrum in rows
    ]


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """One more dimension in front."""
    return torch.stack([tensor.detach() for tensor in tensors])


def _scaled(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Finite matrices (n, a, b) in float64, and (n, 1) what to multiply them with.

    Products of two narrower floats neither overflow nor vanish in float64, so only float64 is brought to 1 at most.
    """
    largest = matrices.abs().amax((1, 2), keepdim=True)
    if not bool(largest.isfinite().all()):
        raise RunFailure("the weight update holds values that are not finite, so it has no rank")
    if matrices.dtype != torch.float64:
        return matrices.to(torch.float64), torch.ones_like(largest, dtype=torch.float64).squeeze(2)
    scale = largest.where(largest > 0, 1.0)
    return matrices / scale, scale.squeeze(2)


def _triangle(tall: Tensor) -> Tensor:
    """R of the QR decomposition of (..., n, R): (..., min(n, R), R)."""
    return torch.linalg.qr(tall, mode="r").R


def _zero(shape: tuple[int, int], tolerance: float) -> Rank:
    return Rank(0, 0.0, 0.0, 0.0, float(shape[0]), tolerance, torch.zeros(0, dtype=torch.float64))
