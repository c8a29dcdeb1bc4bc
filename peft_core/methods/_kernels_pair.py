"""A masked low-rank pair whose masked factors a kernel writes in one go, each mask drawn once, before usual products.

Between drawing masks inside the product, once for every block of tokens, and making the factors by tensor operations,
one launch for each of them: the arithmetic of `_product` with its way `kept`, on CUDA alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peft_core.methods._product import FrozenMap


class _DrawnPair(torch.autograd.Function):
    """y = W x + b + s (B * m_B) (A * m_A) x over the stacked copies; without a frozen map the update alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        keys_a: Tensor,
        keys_b: Tensor,
        scale: float,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        right, left = _factors(x, a, b, keys_a, keys_b, scale)
        flat = x.reshape(-1, x.shape[-1])
        between = flat @ right.T
        if weight is None:
            y = (between @ left.T).view(*x.shape[:-1], -1)
        else:
            y = F.linear(x, weight, bias)
            lines = y.view(-1, y.shape[-1])
            torch.addmm(lines, between, left.T, out=lines)
        ctx.scale = scale
        below = weight if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(x, a, b, keys_a, keys_b, below, between if ctx.needs_input_grad[2] else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from peft_core.methods._kernels_triton import summed_copies

        x, a, b, keys_a, keys_b, weight, between = ctx.saved_tensors
        right, left = _factors(x, a, b, keys_a, keys_b, ctx.scale)
        of_y, flat = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        of_x = of_a = of_b = None
        if ctx.needs_input_grad[2]:
            of_b = summed_copies(of_y.T @ between, keys_b, b, side_by_side=True, scale=ctx.scale)
        of_between = of_y @ left
        if ctx.needs_input_grad[1]:
            of_a = summed_copies(of_between.T @ flat, keys_a, a, side_by_side=False, scale=1.0)
        if ctx.needs_input_grad[0]:
            if weight is None:
                of_x = of_between @ right
            else:
                of_x = of_y @ weight
                torch.addmm(of_x, of_between, right, out=of_x)
            of_x = of_x.view(x.shape)
        return of_x, of_a, of_b, None, None, None, None, None


def _factors(x: Tensor, a: Tensor, b: Tensor, keys_a: Tensor, keys_b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """right (d r, in) and left (out, d r), scaled, in x's dtype."""
    from peft_core.methods._kernels_triton import drawn_copies

    right = drawn_copies(a, keys_a, side_by_side=False, scale=1.0, dtype=x.dtype)
    return right, drawn_copies(b, keys_b, side_by_side=True, scale=scale, dtype=x.dtype)


def drawn_products(
    x: Tensor, a: Tensor, b: Tensor, keys: tuple[Tensor, Tensor], scale: float = 1.0, frozen: FrozenMap | None = None
) -> Tensor:
    """scale * sum_i (B * m_Bi) (A * m_Ai) x, and with a frozen map W x + b added; under autocast in its dtype.

    Args:
        x: (..., in). a: (r, in). b: (out, r); both contiguous.
        keys: int64 (d, 2) of `_kernels.branch_keys` for A and for B, on x's device.

    Returns:
        (..., out).
    """
    device, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    weight, bias = (None, None) if frozen is None else (frozen.weight.to(dtype), frozen.bias)
    with torch.autocast(device, enabled=False):
        bias = None if bias is None else bias.to(dtype)
        found: Tensor = _DrawnPair.apply(x.to(dtype), a, b, *keys, scale, weight, bias)
    return found
