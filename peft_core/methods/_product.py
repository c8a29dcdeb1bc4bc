"""The product of a masked low-rank pair, with a backward pass written by hand that keeps little.

y = s * sum_i (B * m_Bi) diag(g) (A * m_Ai) x, and with a frozen map W x + b added. Autograd alone would keep the d
masked copies of A and B, and their masks byte by byte, from the forward to the backward pass; here the input is kept
once, beside the parameters themselves and their packed masks, and the masked factors are made again. Together with the
frozen map its output and its input's gradient are written once, the low-rank part added in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peft_core.methods._bits import unpack_branches

Way = Literal["kept", "again", "merged"]
"""kept: two thin products, what is between them is kept. again: it is computed again for the backward pass. merged: the
weight and its update are added up and multiplied once, and added up again for the backward pass."""


@dataclass(frozen=True)
class FrozenMap:
    """A frozen linear map y = W x + b: weight (out, in), bias (out,)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Masks:
    """Packed masks of a factor (`_bits.pack_branches`) and of how many branches; packed None: no mask, one branch."""

    packed: Tensor | None
    branches: int = 1

    def copies(self, weight: Tensor) -> Tensor:
        """(rows, cols) to (d, rows, cols)."""
        if self.packed is None:
            return weight.unsqueeze(0)
        return weight * unpack_branches(self.packed, self.branches)

    def summed(self, gradient: Tensor) -> Tensor:
        """From the gradient of the copies (d, rows, cols) to that of the weight."""
        if self.packed is None:
            return gradient.squeeze(0)
        return (gradient * unpack_branches(self.packed, self.branches)).sum(0)


def cheapest_way(
    tokens: int, inputs: int, outputs: int, rank: int, branches: int, trains: bool, needs_input: bool, merges: bool
) -> Way:
    """The way with the fewest multiplications among those that keep no more than one pair of this rank would.

    Counted are multiplications for each of the d r directions beyond those of the frozen map. Kept beside the input are
    d r values a token, or none; one plain pair and its two factors have r (tokens + in + out), and no more is kept.
    The values moved beyond the frozen map's own, 2 out (and for the input's gradient 2 in) a token in thin products
    and 2 in out each time that a weight is added up, are equal at the same numbers of tokens, so they decide nothing.
    A weight that is added up could be kept as well, for in out values: where that is within these bounds, adding it up
    again is a small share of the work. Without a backward pass merging pays from tokens = in out / (in + out) on, with
    the input's gradient at twice as many. As measured on one core of a CPU, 768 x 768, d r = 64, in ms above the
    frozen map: 512 tokens 4.4 kept, 5.1 again, 5.4 merged; 1024 tokens 10.2, 11.5, 9.2; 4096 tokens 39, 39, 30.

    Args:
        trains: a backward pass follows. needs_input: it goes on to the input.
        merges: whether adding up is possible at all, and exact enough.
    """
    sides, square = inputs + outputs, inputs * outputs
    backward = tokens * (inputs + 2 * outputs + inputs * needs_input) if trains else 0
    costs: dict[Way, int] = {"kept": tokens * sides + backward}
    if (branches - 1) * tokens > sides and trains:
        costs = {"again": tokens * (sides + inputs) + backward}
    if merges:
        costs["merged"] = square + (2 * tokens * sides + square * needs_input if trains else 0)
    return min(costs, key=lambda way: costs[way])


def low_rank_product(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    gate: Tensor | None,
    masks_a: Masks,
    masks_b: Masks,
    scale: float,
    frozen: FrozenMap | None = None,
    way: Way | None = None,
) -> Tensor:
    """x (..., in) to the update's output (..., out), or with a frozen map to the output of both.

    Args:
        a, b, gate: (r, in), (out, r) and (r,).
        way: None for the cheapest. Under autocast the products are thin: a merged weight in bf16 loses small updates.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        low = None if frozen is None else FrozenMap(frozen.weight.to(dtype), _to(frozen.bias, dtype))
        with torch.autocast(device, enabled=False):
            chosen = way or way_of(x, a, b, masks_a, None)
            return _apply(x.to(dtype), a, b, gate, masks_a, masks_b, scale, low, chosen)
    return _apply(x, a, b, gate, masks_a, masks_b, scale, frozen, way or way_of(x, a, b, masks_a, frozen))


def way_of(x: Tensor, a: Tensor, b: Tensor, masks: Masks, frozen: FrozenMap | None) -> Way:
    """The cheapest way for an input (..., in); merged only in float32 or float64."""
    tokens, trains = x.numel() // max(1, x.shape[-1]), torch.is_grad_enabled()
    merges = frozen is not None and frozen.weight.dtype == x.dtype and x.dtype in (torch.float32, torch.float64)
    needs = trains and x.requires_grad
    return cheapest_way(tokens, a.shape[1], b.shape[0], len(a), masks.branches, trains, needs, merges)


def _to(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if value is None else value.to(dtype)


def _apply(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    gate: Tensor | None,
    masks_a: Masks,
    masks_b: Masks,
    scale: float,
    frozen: FrozenMap | None,
    way: Way,
) -> Tensor:
    weight, bias = (None, None) if frozen is None else (frozen.weight, frozen.bias)
    masks = (masks_a.packed, masks_b.packed)
    found: Tensor = _Product.apply(x, a, b, gate, weight, bias, *masks, masks_a.branches, scale, way)
    return found


class _Factors:
    """left (out, d r), scale included, and right (d r, in), gate included, of the parameters and their masks."""

    def __init__(self, a: Tensor, b: Tensor, gate: Tensor | None, masks: tuple[Masks, Masks], scale: float) -> None:
        self.a, self.b, self.gate, self.masks, self.scale = a, b, gate, masks, scale
        self.copies_a = masks[0].copies(a)
        gated = self.copies_a if gate is None else self.copies_a * gate.unsqueeze(1)
        self.right = gated.flatten(0, 1)
        copies_b = masks[1].copies(b if scale == 1 else b * scale)
        self.left = copies_b.squeeze(0) if len(copies_b) == 1 else copies_b.transpose(0, 1).flatten(1, 2)

    def gradient_of_b(self, left: Tensor) -> Tensor:
        """From that of left (out, d r)."""
        parts = left.to(self.b.dtype).unflatten(1, (-1, self.b.shape[1])).transpose(0, 1)
        gradient = self.masks[1].summed(parts)
        return gradient if self.scale == 1 else gradient * self.scale

    def gradients_of_a(self, right: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of a and of the gate, from that of right (d r, in)."""
        parts = right.to(self.a.dtype).view(-1, *self.a.shape)
        if self.gate is None:
            return self.masks[0].summed(parts), None
        return self.masks[0].summed(parts * self.gate.unsqueeze(1)), (parts * self.copies_a).sum((0, 2))


def _added(to: Tensor, one: Tensor, two: Tensor) -> Tensor:
    """to += one @ two, in place; written so that FLOPs are counted, which `addmm_` escapes."""
    return torch.addmm(to, one, two, out=to)


class _Product(torch.autograd.Function):
    """See the head of this file; inputs and parameters of any floating type, products in that of the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        gate: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        packed_a: Tensor | None,
        packed_b: Tensor | None,
        branches: int,
        scale: float,
        way: Way,
    ) -> Tensor:
        factors = _Factors(a, b, gate, (Masks(packed_a, branches), Masks(packed_b, branches)), scale)
        left, right = factors.left.to(x.dtype), factors.right.to(x.dtype)
        between = None
        if way == "merged":
            assert weight is not None
            y = F.linear(x, torch.addmm(weight, left, right), bias)
        else:
            flat = x.reshape(-1, x.shape[-1])
            between = flat @ right.T
            if weight is None:
                y = (between @ left.T).view(*x.shape[:-1], len(left))
            else:
                y = F.linear(x, weight, bias)
                _added(y.view(-1, y.shape[-1]), between, left.T)
        ctx.branches, ctx.scale, ctx.way = branches, scale, way
        kept = between if way == "kept" and ctx.needs_input_grad[2] else None
        ctx.save_for_backward(x, a, b, gate, weight if ctx.needs_input_grad[0] else None, packed_a, packed_b, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, gate, weight, packed_a, packed_b, between = ctx.saved_tensors
        masks = (Masks(packed_a, ctx.branches), Masks(packed_b, ctx.branches))
        factors = _Factors(a, b, gate, masks, ctx.scale)
        left, right = factors.left.to(x.dtype), factors.right.to(x.dtype)
        needs_x, needs_a, needs_b, needs_gate = ctx.needs_input_grad[:4]
        of_y, flat = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        merged = ctx.way == "merged"
        of_x: Tensor | None = None
        of_a = of_b = of_gate = None
        if needs_b:
            of_b = factors.gradient_of_b(of_y.T @ (flat @ right.T if between is None else between))
        of_between = of_y @ left if needs_a or needs_gate or (needs_x and not merged) else None
        if of_between is not None and (needs_a or needs_gate):
            of_a, of_gate = factors.gradients_of_a(of_between.T @ flat)
        if needs_x:
            if merged:
                of_x = of_y @ torch.addmm(weight, left, right)
            elif of_between is not None:
                of_x = of_between @ right if weight is None else _added(of_y @ weight, of_between, right)
            of_x = None if of_x is None else of_x.view(x.shape)
        return (of_x, of_a, of_b, of_gate, *[None] * 7)


def masked_linear(x: Tensor, weight: Tensor, bias: Tensor, masks: Masks, beside: bool) -> Tensor:
    """x times the masked copies of a weight, which are made again for the backward pass, plus a bias.

    Args:
        weight: (rows, cols).
        beside: the copies stand beside each other, (rows, d cols); else one below the other, (d rows, cols).
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        found: Tensor = _MaskedLinear.apply(x, weight, bias, masks.packed, masks.branches, beside)
        return found
    x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return masked_linear(x, weight, bias.to(x.dtype), masks, beside)


def _beside(copies: Tensor) -> Tensor:
    """(d, rows, cols) to (rows, d cols)."""
    return copies.transpose(0, 1).flatten(1, 2)


class _MaskedLinear(torch.autograd.Function):
    """See `masked_linear`; products in the input's type."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, packed: Tensor | None, branches: int, beside: bool
    ) -> Tensor:
        copies = Masks(packed, branches).copies(weight)
        ctx.branches, ctx.beside = branches, beside
        ctx.save_for_backward(x, weight, packed)
        return F.linear(x, (_beside(copies) if beside else copies.flatten(0, 1)).to(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, packed = ctx.saved_tensors
        masks = Masks(packed, ctx.branches)
        of_y, flat = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        of_copies = (of_y.T @ flat).to(weight.dtype)
        if ctx.beside:
            of_copies = of_copies.unflatten(1, (ctx.branches, -1)).transpose(0, 1)
        else:
            of_copies = of_copies.unflatten(0, (ctx.branches, -1))
        of_x = None
        if ctx.needs_input_grad[0]:
            copies = masks.copies(weight)
            of_x = (of_y @ (_beside(copies) if ctx.beside else copies.flatten(0, 1)).to(x.dtype)).view(x.shape)
        return (of_x, masks.summed(of_copies), of_y.sum(0), None, None, None)
