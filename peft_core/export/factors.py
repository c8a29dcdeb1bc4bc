"""Smaller factors of a weight update: the QR of both, the SVD of the small core in float64, cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """left (out, R) @ right (R, in)."""

    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """R, the inner dimension."""
        return self.right.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]


def stacked(parts: list[Factors]) -> Factors:
    """One pair whose product is the sum of the parts' products."""
    return Factors(torch.cat([part.left for part in parts], 1), torch.cat([part.right for part in parts], 0))


def living(factors: Factors) -> Factors:
    """Without the directions that add nothing, because a side of theirs is all zeros."""
    alive = factors.left.any(0) & factors.right.any(1)
    return factors if bool(alive.all()) else Factors(factors.left[:, alive], factors.right[alive])


@dataclass(frozen=True)
class Decomposed:
    """U (out, k), falling values (k,) and V (k, in), float64: U diag(values) V is the update."""

    u: Tensor
    values: Tensor
    v: Tensor

    def numerical_rank(self) -> int:
        """Values above max(out, in) eps of the largest, eps of float64."""
        if not len(self.values) or self.values[0] == 0:
            return 0
        share = max(self.u.shape[0], self.v.shape[1]) * torch.finfo(torch.float64).eps
        return int((self.values > share * self.values[0]).sum())

    def rank_at(self, energy: float) -> int:
        """Fewest directions that hold this share of the sum of the squared singular values."""
        return rank_at(self.values, energy)

    def cut(self, rank: int, like: Tensor) -> Factors:
        """The best pair of this rank, its singular values split evenly, in the type of `like`."""
        root = self.values[:rank].sqrt()
        left, right = self.u[:, :rank] * root, root.unsqueeze(1) * self.v[:rank]
        return Factors(left.to(like), right.to(like))


def rank_at(values: Tensor, energy: float) -> int:
    """Fewest of these falling singular values that hold a share of the sum of their squares; 0 for a zero update."""
    if not len(values) or values[0] == 0:
        return 0
    squares = (values / values[0]).square().cumsum(0)
    return min(int((squares < energy * squares[-1]).sum()) + 1, len(values))


@torch.no_grad()
def decomposed(factors: Factors) -> Decomposed:
    """The SVD of left @ right through QR of both factors; the product is never formed."""
    q_left, r_left = torch.linalg.qr(factors.left.double())
    q_right, r_right = torch.linalg.qr(factors.right.double().T)
    u, values, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    return Decomposed(q_left @ u, values, v @ q_right.T)
