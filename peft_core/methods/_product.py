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

from peft_core.methods._bits import unpack_rows

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

    def to(self, dtype: torch.dtype) -> FrozenMap:
        return FrozenMap(self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


@dataclass(frozen=True)
class Masks:
    """Masks of a weight (..., rows, cols): packed (..., d, rows, ceil(cols / 8)) as in `_bits.pack_rows`, None for one
    branch without a mask; cols: of the weight, where there are masks."""

    packed: Tensor | None
    cols: int = 0

    @property
    def branches(self) -> int:
        return 1 if self.packed is None else self.packed.shape[-3]

    def copies(self, weight: Tensor) -> Tensor:
        """(..., rows, cols) to (..., d, rows, cols). Autograd keeps the masks a byte a value."""
        copies = weight.unsqueeze(-3)
        return copies if self.packed is None else copies * unpack_rows(self.packed, self.cols, torch.bool)


class Copies:
    """The masked copies of a weight as one matrix, and its gradient from that matrix's. The masks are made once.

    Small tensors and cold caches: what counts here is the number of operations.

    Args:
        packed: as in `Masks`.
        beside: (rows, cols) to (rows, d cols), the copies beside each other; else to (d rows, cols).
    """

    def __init__(self, weight: Tensor, packed: Tensor | None, beside: bool) -> None:
        self.matrix, self._masks, self._along = weight, packed, 1 if beside else 0
        if packed is not None:
            rows, cols = weight.shape
            d = len(packed)
            self._masks = unpack_rows(packed.transpose(0, 1) if beside else packed, cols, weight.dtype)
            shape = (rows, d * cols) if beside else (d * rows, cols)
            self.matrix = (weight.unsqueeze(self._along) * self._masks).view(shape)

    def gradient(self, of_matrix: Tensor) -> Tensor:
        """In the weight's type and shape."""
        of_matrix = _to(of_matrix, self.matrix.dtype)
        if self._masks is None:
            return of_matrix
        parts = of_matrix.view(self._masks.shape).unbind(self._along)
        first, *others = self._masks.unbind(self._along)
        gradient = parts[0] * first
        for part, mask in zip(parts[1:], others, strict=True):
            gradient.addcmul_(part, mask)
        return gradient


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
        low = None if frozen is None else frozen.to(dtype)
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


def _to(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value if value.dtype == dtype else value.to(dtype)


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
    found: Tensor = _Product.apply(x, a, b, gate, weight, bias, *masks, scale, way)
    return found


class _Factors:
    """left (out, d r), scale included, and right (d r, in), gate included, of the parameters and their masks."""

    def __init__(
        self,
        a: Tensor,
        b: Tensor,
        gate: Tensor | None,
        packed: tuple[Tensor | None, Tensor | None],
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        self._a, self._gate, self._scale = a, gate, scale
        self._right = Copies(a if gate is None else a * gate.unsqueeze(1), packed[0], beside=False)
        self._left = Copies(b if scale == 1 else b * scale, packed[1], beside=True)
        self.right, self.left = _to(self._right.matrix, dtype), _to(self._left.matrix, dtype)

    def gradient_of_b(self, left: Tensor) -> Tensor:
        """From that of left (out, d r)."""
        gradient = self._left.gradient(left)
        return gradient if self._scale == 1 else gradient * self._scale

    def gradients_of_a(self, right: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of a and of the gate, from that of right (d r, in)."""
        gated = self._right.gradient(right)
        if self._gate is None:
            return gated, None
        return gated * self._gate.unsqueeze(1), (gated * self._a).sum(1)


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
        scale: float,
        way: Way,
    ) -> Tensor:
        factors = _Factors(a, b, gate, (packed_a, packed_b), scale, x.dtype)
        left, right = factors.left, factors.right
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
        ctx.scale, ctx.way = scale, way
        kept = between if way == "kept" and ctx.needs_input_grad[2] else None
        ctx.save_for_backward(x, a, b, gate, weight if ctx.needs_input_grad[0] else None, packed_a, packed_b, kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, gate, weight, packed_a, packed_b, between = ctx.saved_tensors
        factors = _Factors(a, b, gate, (packed_a, packed_b), ctx.scale, x.dtype)
        left, right = factors.left, factors.right
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
        return (of_x, of_a, of_b, of_gate, *[None] * 6)


def masked_linear(x: Tensor, weight: Tensor, bias: Tensor, masks: Masks, beside: bool) -> Tensor:
    """x times the masked copies of a weight, which are made again for the backward pass, plus a bias.

    Args:
        weight: (rows, cols).
        beside: the copies stand beside each other, (rows, d cols); else one below the other, (d rows, cols).
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        found: Tensor = _MaskedLinear.apply(x, weight, bias, masks.packed, beside)
        return found
    x = x.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return masked_linear(x, weight, bias.to(x.dtype), masks, beside)


class _MaskedLinear(torch.autograd.Function):
    """See `masked_linear`; products in the input's type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, packed: Tensor | None, beside: bool) -> Tensor:
        ctx.beside = beside
        ctx.save_for_backward(x, weight, packed)
        return F.linear(x, _to(Copies(weight, packed, beside).matrix, x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, packed = ctx.saved_tensors
        copies = Copies(weight, packed, ctx.beside)
        of_y, flat = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        of_x = (of_y @ _to(copies.matrix, x.dtype)).view(x.shape) if ctx.needs_input_grad[0] else None
        return (of_x, copies.gradient(of_y.T @ flat), of_y.sum(0), None, None)
