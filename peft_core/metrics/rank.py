"""Rank of a weight update, from its factors: QR of both, SVD of the small core in float64. ΔW is never formed.

With left = Q1 R1 and rightᵀ = Q2 R2, left @ right = Q1 (R1 R2ᵀ) Q2ᵀ has the singular values of the small core R1 R2ᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peft_core.records import RunFailure


@dataclass(frozen=True)
class Rank:
    """Three notions of rank, and what they come from.

    numerical: singular values above max(m, n)·eps·σ_max, as torch.linalg.matrix_rank counts them on ΔW in float64.
    effective: exp of the entropy of σ / Σσ (Roy and Vetterli 2007). stable: ||ΔW||_F² / ||ΔW||_2².
    norm: ||ΔW||_F. singular_values: float64, falling, at most min(m, n). A zero update has rank 0 in all three.
    """

    numerical: int
    effective: float
    stable: float
    norm: float
    singular_values: Tensor


def rank_of_factors(left: Tensor, right: Tensor, tolerance: float | None = None) -> Rank:
    """Rank of left @ right.

    Args:
        left: (out, R). R may exceed the smaller side of the update.
        right: (R, in).
        tolerance: share of the largest singular value below which one counts as zero; None: max(out, in)·eps with the
            eps of float64. The factors may have been trained in float32, but their product is exact to float64, so a
            direction that float32 training left small still is a direction.

    Raises:
        RunFailure: a factor holds a value that is not finite.
        ValueError: shapes that do not fit.
    """
    if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"factors of shapes {tuple(left.shape)} and {tuple(right.shape)} have no product")
    left, right = _finite(left), _finite(right)
    scale_left, scale_right = _scale(left), _scale(right)
    if scale_left == 0 or scale_right == 0:
        return _zero()
    core_left = _triangle(left / scale_left)
    core_right = _triangle((right / scale_right).T)
    values = torch.linalg.svdvals(core_left @ core_right.T) * (scale_left * scale_right)
    shape = (left.shape[0], right.shape[1])
    return rank_of_spectrum(values[: min(shape)], shape, tolerance)


def rank_of_matrix(delta: Tensor, tolerance: float | None = None) -> Rank:
    """Rank of a dense difference (out, in); `tolerance` as in `rank_of_factors`.

    Raises:
        RunFailure: it holds a value that is not finite.
    """
    delta = _finite(delta)
    return rank_of_spectrum(torch.linalg.svdvals(delta), (delta.shape[0], delta.shape[1]), tolerance)


def rank_of_spectrum(singular_values: Tensor, shape: tuple[int, int], tolerance: float | None = None) -> Rank:
    """The three ranks of a matrix of this shape from its singular values, float64 and falling."""
    if singular_values.numel() == 0 or singular_values[0] <= 0:
        return _zero()
    largest = singular_values[0]
    share = tolerance if tolerance is not None else max(shape) * torch.finfo(torch.float64).eps
    relative = singular_values / largest
    probabilities = relative / relative.sum()
    return Rank(
        numerical=int((relative > share).sum()),
        effective=float(torch.special.entr(probabilities).sum().exp()),
        stable=float(relative.square().sum()),
        norm=float(largest * relative.square().sum().sqrt()),
        singular_values=singular_values.cpu(),
    )


def _finite(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        raise RunFailure("the weight update holds values that are not finite, so it has no rank")
    return tensor


def _scale(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def _triangle(tall: Tensor) -> Tensor:
    """R of the QR decomposition of (n, R): (min(n, R), R)."""
    return torch.linalg.qr(tall, mode="r").R


def _zero() -> Rank:
    return Rank(0, 0.0, 0.0, 0.0, torch.zeros(0, dtype=torch.float64))
