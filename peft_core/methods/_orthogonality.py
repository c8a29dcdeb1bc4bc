"""Penalties that keep the directions of low-rank factors orthonormal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gram_distance(rows: Tensor) -> Tensor:
    """||M M^T - I||_F^2 of M (r, n): 0 where the rows are orthonormal, r where they are zero."""
    gram = rows @ rows.T
    return (gram - torch.eye(len(rows), device=rows.device, dtype=rows.dtype)).square().sum()


def squared_penalty(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean over pairs A (r, in), B (out, r) of ||A A^T - I||_F^2 + ||B^T B - I||_F^2 (RM-LoRA; AdaLoRA's paper)."""
    return torch.stack([gram_distance(a) + gram_distance(b.T) for a, b in pairs]).mean()


def unsquared_penalty(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean over all A and B of ||A A^T - I||_F, ||B^T B - I||_F: what AdaLoRA's code adds, the root not squared."""
    distances = [distance for a, b in pairs for distance in (gram_distance(a), gram_distance(b.T))]
    return torch.stack(distances).clamp_min(1e-24).sqrt().mean()
