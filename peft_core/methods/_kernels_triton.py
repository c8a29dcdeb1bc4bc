"""The Triton kernels behind `_kernels`: products with a tensor under d masks that are made inside the product, and the
tiled sum of a sensitivity. Imported only where Triton and a device for it are there.

One layout serves both factors. A stacked matrix W has, for branch i and direction j, the line i r + j, whose other
axis is the input's (A) or the output's (B). Value (j, o) of the shared tensor lies at offset j s_j + o s_o, which is
also the counter that its masks are drawn by.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SPLIT_TOKENS = 512
"""Tokens of a gradient that one program sums; parts are added in one order, so that equal input gives equal bits."""
ELEMENTS = 256
"""Values of a shared tensor that one program masks."""


@triton.jit
def _kept(counters, base, threshold):
    """SplitMix64 of base + counter (`_masks.hash_counters`), at most the threshold as unsigned numbers."""
    z = (counters.to(tl.int64) + 1) * -7046029254386353131 + base
    z = (z ^ ((z >> 30) & 17179869183)) * -4658895280553007687
    z = (z ^ ((z >> 27) & 137438953471)) * -7723592293110705685
    z = z ^ ((z >> 31) & 8589934591)
    return z.to(tl.uint64, bitcast=True) <= threshold.to(tl.uint64, bitcast=True)


@triton.jit
def _dot(a, b, total, precision: tl.constexpr):
    """total + a b; `widened` for the interpreter, which would multiply the bits of bf16 values."""
    if precision == "widened":
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision="ieee")
    else:
        total = tl.dot(a, b, total, input_precision=precision)
    return total


@triton.jit
def _product(
    x,
    shared,
    keys,
    y,
    tokens,
    outs,
    inner,
    rank,
    stride_direction,
    stride_other,
    lines_out: tl.constexpr,
    precision: tl.constexpr,
    block_t: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    """y (tokens, outs) = x (tokens, inner) times the stacked matrix, whose lines are the outputs or the inner axis."""
    t = tl.program_id(0) * block_t + tl.arange(0, block_t)
    n = tl.program_id(1) * block_n + tl.arange(0, block_n)
    total = tl.zeros((block_t, block_n), dtype=tl.float32)
    for start in range(0, inner, block_k):
        k = start + tl.arange(0, block_k)
        rows = tl.load(
            x + t[:, None].to(tl.int64) * inner + k[None, :],
            mask=(t[:, None] < tokens) & (k[None, :] < inner),
            other=0.0,
        )
        inside = (k[:, None] < inner) & (n[None, :] < outs)
        if lines_out:
            offsets = k[:, None] * stride_other + (n % rank)[None, :] * stride_direction
            key = keys + 2 * (n // rank)
            base = tl.load(key, mask=n < outs, other=0)[None, :]
            threshold = tl.load(key + 1, mask=n < outs, other=0)[None, :]
        else:
            offsets = (k % rank)[:, None] * stride_direction + n[None, :] * stride_other
            key = keys + 2 * (k // rank)
            base = tl.load(key, mask=k < inner, other=0)[:, None]
            threshold = tl.load(key + 1, mask=k < inner, other=0)[:, None]
        values = tl.load(shared + offsets, mask=inside, other=0.0)
        values = tl.where(_kept(offsets, base, threshold), values, 0.0)
        total = _dot(rows, values.to(rows.dtype), total, precision)
    place = y + t[:, None].to(tl.int64) * outs + n[None, :]
    tl.store(place, total.to(y.dtype.element_ty), mask=(t[:, None] < tokens) & (n[None, :] < outs))


@triton.jit
def _gradient(
    lines,
    others,
    keys,
    parts,
    tokens,
    width,
    rank,
    stride_direction,
    stride_other,
    copies: tl.constexpr,
    precision: tl.constexpr,
    split: tl.constexpr,
    block_j: tl.constexpr,
    block_o: tl.constexpr,
    block_t: tl.constexpr,
):
    """A part of the shared tensor's gradient: over `split` tokens, sum over branches of m_i * (lines_i^T others)."""
    j = tl.program_id(0) * block_j + tl.arange(0, block_j)
    o = tl.program_id(1) * block_o + tl.arange(0, block_o)
    offsets = j[:, None] * stride_direction + o[None, :] * stride_other
    total = tl.zeros((block_j, block_o), dtype=tl.float32)
    for branch in range(copies):
        found = tl.zeros((block_j, block_o), dtype=tl.float32)
        for start in range(0, split, block_t):
            t = (tl.program_id(2) * split + start + tl.arange(0, block_t)).to(tl.int64)
            of_lines = tl.load(
                lines + t[None, :] * (copies * rank) + branch * rank + j[:, None],
                mask=(t[None, :] < tokens) & (j[:, None] < rank),
                other=0.0,
            )
            of_others = tl.load(
                others + t[:, None] * width + o[None, :],
                mask=(t[:, None] < tokens) & (o[None, :] < width),
                other=0.0,
            )
            found = _dot(of_lines, of_others, found, precision)
        kept = _kept(offsets, tl.load(keys + 2 * branch), tl.load(keys + 2 * branch + 1))
        total += tl.where(kept, found, 0.0)
    place = parts + tl.program_id(2).to(tl.int64) * rank * width + offsets
    tl.store(place, total, mask=(j[:, None] < rank) & (o[None, :] < width))


@triton.jit
def _sensitivity(
    left,
    right,
    delta,
    x,
    parts,
    tokens,
    outs,
    ins,
    rank,
    precision: tl.constexpr,
    block_o: tl.constexpr,
    block_i: tl.constexpr,
    block_t: tl.constexpr,
    block_r: tl.constexpr,
):
    """Sum over one tile of |(left right) * (delta^T x)|."""
    o = tl.program_id(0) * block_o + tl.arange(0, block_o)
    i = tl.program_id(1) * block_i + tl.arange(0, block_i)
    update = tl.zeros((block_o, block_i), dtype=tl.float32)
    for start in range(0, rank, block_r):
        r = start + tl.arange(0, block_r)
        a = tl.load(left + o[:, None] * rank + r[None, :], mask=(o[:, None] < outs) & (r[None, :] < rank), other=0.0)
        b = tl.load(right + r[:, None] * ins + i[None, :], mask=(r[:, None] < rank) & (i[None, :] < ins), other=0.0)
        update = _dot(a, b, update, precision)
    gradient = tl.zeros((block_o, block_i), dtype=tl.float32)
    for start in range(0, tokens, block_t):
        t = (start + tl.arange(0, block_t)).to(tl.int64)
        d = tl.load(delta + t[None, :] * outs + o[:, None], mask=(t[None, :] < tokens) & (o[:, None] < outs), other=0.0)
        u = tl.load(x + t[:, None] * ins + i[None, :], mask=(t[:, None] < tokens) & (i[None, :] < ins), other=0.0)
        gradient = _dot(d, u, gradient, precision)
    place = parts + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(place, tl.sum(tl.abs(update * gradient)))


@triton.jit
def _drawn(shared, keys, stacked, count, line, wide, step, copies, scale, block: tl.constexpr):
    """The masked copies of a shared tensor, scaled: value n of branch i at (n // line) wide + n % line + i step."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    values = tl.load(shared + n, mask=n < count, other=0.0).to(tl.float32) * scale
    place = (n // line) * wide + n % line
    for branch in range(copies):
        kept = _kept(n, tl.load(keys + 2 * branch), tl.load(keys + 2 * branch + 1))
        masked = tl.where(kept, values, 0.0).to(stacked.dtype.element_ty)
        tl.store(stacked + place + branch * step, masked, mask=n < count)


@triton.jit
def _summed(gradient, keys, total, count, line, wide, step, copies, scale, block: tl.constexpr):
    """From the gradient of what `_drawn` makes to that of the shared tensor."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    place = (n // line) * wide + n % line
    found = tl.zeros((block,), dtype=tl.float32)
    for branch in range(copies):
        kept = _kept(n, tl.load(keys + 2 * branch), tl.load(keys + 2 * branch + 1))
        part = tl.load(gradient + place + branch * step, mask=n < count, other=0.0).to(tl.float32)
        found += tl.where(kept, part, 0.0)
    tl.store(total + n, (found * scale).to(total.dtype.element_ty), mask=n < count)


def drawn_copies(shared: Tensor, keys: Tensor, side_by_side: bool, scale: float, dtype: torch.dtype) -> Tensor:
    """The masked copies of (rows, cols), one below the other (d rows, cols) or side by side (rows, d cols)."""
    rows, cols = shared.shape
    shape = (rows, len(keys) * cols) if side_by_side else (len(keys) * rows, cols)
    stacked = torch.empty(shape, dtype=dtype, device=shared.device)
    _drawn[_elements(shared)](shared, keys, stacked, *_places(shared, keys, side_by_side), scale, ELEMENTS)
    return stacked


def summed_copies(gradient: Tensor, keys: Tensor, shared: Tensor, side_by_side: bool, scale: float) -> Tensor:
    """The gradient of `shared` (rows, cols) from that of its `drawn_copies`, contiguous; in the dtype of `shared`."""
    total = torch.empty_like(shared)
    _summed[_elements(shared)](gradient, keys, total, *_places(shared, keys, side_by_side), scale, ELEMENTS)
    return total


def _elements(shared: Tensor) -> tuple[int]:
    return (triton.cdiv(shared.numel(), ELEMENTS),)


def _places(shared: Tensor, keys: Tensor, side_by_side: bool) -> tuple[int, int, int, int, int]:
    """(count, line, wide, step, copies) of `_drawn`."""
    count, cols = shared.numel(), shared.shape[1]
    if side_by_side:
        return count, cols, len(keys) * cols, cols, len(keys)
    return count, count, 0, count, len(keys)


def stacked_product(x: Tensor, shared: Tensor, keys: Tensor, strides: tuple[int, int, int], lines_out: bool) -> Tensor:
    """x (tokens, inner) times the stacked matrix of `shared`, (tokens, outs), in x's dtype.

    Args:
        keys: int64 (d, 2), base and threshold of each branch.
        strides: (rank, s_j, s_o) of the shared tensor.
        lines_out: whether the d r lines are the outputs; else they are what is summed over.
    """
    rank, direction, other = strides
    lines, width = len(keys) * rank, shared.numel() // rank
    outs, inner = (lines, width) if lines_out else (width, lines)
    y = torch.empty(len(x), outs, dtype=x.dtype, device=x.device)
    blocks = (64, _block(outs, 64), _block(inner, 64))
    grid = (triton.cdiv(len(x), blocks[0]), triton.cdiv(outs, blocks[1]))
    sizes = (len(x), outs, inner, rank, direction, other)
    _product[grid](x, shared, keys, y, *sizes, lines_out, _precision(x), *blocks)
    return y


def shared_gradient(
    lines: Tensor, others: Tensor, keys: Tensor, strides: tuple[int, int, int], shape: torch.Size
) -> Tensor:
    """float32 gradient of a shared tensor of this shape from lines (tokens, d r) and others (tokens, width)."""
    rank, direction, other = strides
    tokens, width = others.shape
    splits = max(1, triton.cdiv(tokens, SPLIT_TOKENS))
    parts = torch.empty(splits, *shape, dtype=torch.float32, device=lines.device)
    blocks = (_block(rank, 64), _block(width, 64), 64)
    grid = (triton.cdiv(rank, blocks[0]), triton.cdiv(width, blocks[1]), splits)
    sizes = (tokens, width, rank, direction, other)
    _gradient[grid](lines, others, keys, parts, *sizes, len(keys), _precision(lines), SPLIT_TOKENS, *blocks)
    return parts.sum(0)


def sensitivity_sum(left: Tensor, right: Tensor, delta: Tensor, x: Tensor) -> Tensor:
    """Sum of |(left right) * (delta^T x)| for left (out, R), right (R, in), delta (tokens, out), x (tokens, in)."""
    outs, ins = len(left), right.shape[1]
    blocks = (_block(outs, 64), _block(ins, 64), 64, _block(left.shape[1], 32))
    grid = (triton.cdiv(outs, blocks[0]), triton.cdiv(ins, blocks[1]))
    parts = torch.empty(grid, dtype=torch.float32, device=left.device)
    _sensitivity[grid](left, right, delta, x, parts, len(x), outs, ins, left.shape[1], _precision(x), *blocks)
    return parts.sum()


def _block(size: int, largest: int) -> int:
    """A power of two from 16, the least side of a tensor core's tile, to `largest`."""
    return max(16, min(largest, triton.next_power_of_2(size)))


def _precision(x: Tensor) -> str:
    """How float32 is multiplied: exactly, unless PyTorch's own products may use TF32 too."""
    if not x.is_cuda:
        return "widened"
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
