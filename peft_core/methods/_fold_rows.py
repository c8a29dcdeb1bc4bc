"""Sums into some rows of a folded batch, and a frozen map with the low-rank updates of several runs on their rows.

Autograd would make a tensor of the whole batch's size, mostly zeros, for every slice in its backward pass. Here what
passes by is passed on as it is, and what slots add goes into their rows in place, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Part:
    """The low-rank updates of neighbouring slots, from `first` up to `end`, at output features from `offset` on.

    right (slots, R, in), left (slots, out, R).
    """

    first: int
    end: int
    offset: int
    right: Tensor
    left: Tensor


def folded_map(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, base: Tensor | None, count: int, parts: Sequence[Part]
) -> Tensor:
    """W x + b and every part's left right x on its slots' rows.

    Args:
        x: (count * n, ..., in).
        weight, bias: (out, in), (out,), frozen; or base (count * n, ..., out), what the map has given.
        count: slots in the batch.
    """
    device, places = x.device.type, tuple((part.first, part.end, part.offset) for part in parts)
    factors = [factor for part in parts for factor in (part.right, part.left)]
    if not torch.is_autocast_enabled(device):
        found: Tensor = _FoldedMap.apply(x, weight, bias, base, count, places, *factors)
        return found
    low = [value if value is None else value.to(torch.get_autocast_dtype(device)) for value in (x, weight, bias, base)]
    with torch.autocast(device, enabled=False):
        found = _FoldedMap.apply(*low, count, places, *[factor.to(low[0].dtype) for factor in factors])  # type: ignore[union-attr]
        return found


class _FoldedMap(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        base: Tensor | None,
        count: int,
        places: tuple[tuple[int, int, int], ...],
        *factors: Tensor,
    ) -> Tensor:
        y = _mapped(x, weight, bias) if weight is not None else base.clone(memory_format=torch.contiguous_format)  # type: ignore[union-attr]
        from_, to = _by_slot(x, count), _by_slot(y, count)
        inner = []
        for (first, end, offset), right, left in zip(places, factors[::2], factors[1::2], strict=True):
            inner.append(torch.bmm(from_[first:end], right.mT))
            _features(to[first:end], offset, left).baddbmm_(inner[-1], left.mT)
        ctx.count, ctx.places, ctx.frozen = count, places, weight is not None
        needed = weight if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(x, needed, *factors, *inner)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight, *saved = ctx.saved_tensors
        pairs, inner = saved[: 2 * len(ctx.places)], saved[2 * len(ctx.places) :]
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight if ctx.frozen else torch.zeros_like(x, memory_format=torch.contiguous_format)
        from_, of_y = _by_slot(x, ctx.count), _by_slot(gradient, ctx.count)
        of_factors: list[Tensor | None] = []
        for (first, end, offset), right, left, between in zip(ctx.places, pairs[::2], pairs[1::2], inner, strict=True):
            own = _features(of_y[first:end], offset, left)
            of_between = torch.bmm(own, left)
            of_factors += [torch.bmm(of_between.mT, from_[first:end]), torch.bmm(own.mT, between)]
            if of_x is not None:
                _by_slot(of_x, ctx.count)[first:end].baddbmm_(of_between, right)
        return (of_x, None, None, gradient if ctx.needs_input_grad[3] else None, None, None, *of_factors)


def _mapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b in a tensor of its own, which is not a view as that of `F.linear` may be: it is added to in place."""
    y = x.new_empty((*x.shape[:-1], len(weight)))
    flat, to = x.reshape(-1, x.shape[-1]), y.view(-1, len(weight))
    if bias is None:
        torch.mm(flat, weight.T, out=to)
    else:
        torch.addmm(bias, flat, weight.T, out=to)
    return y


def _by_slot(x: Tensor, count: int) -> Tensor:
    """(count * n, ..., features) as (count, m, features)."""
    return x.reshape(count, -1, x.shape[-1])


def _features(y: Tensor, offset: int, left: Tensor) -> Tensor:
    return y[:, :, offset : offset + left.shape[1]]


def added_rows(
    output: Tensor, count: int, additions: Sequence[tuple[int, int, Tensor]], in_place: bool = False
) -> Tensor:
    """output (count * n, ...) with each addition on the rows of the slots from its first to its end.

    Args:
        additions: first, end, and what can be broadcast to (end - first, n, ...).
        in_place: where nothing else reads the output.
    """
    places = tuple((first, end) for first, end, _ in additions)
    values = [value.to(output.dtype) for *_, value in additions]
    found: Tensor = _AddedRows.apply(output, count, places, in_place, *values)
    return found


class _AddedRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, output: Tensor, count: int, places: tuple[tuple[int, int], ...], in_place: bool, *values: Tensor
    ) -> Tensor:
        ctx.count, ctx.places, ctx.shapes = count, places, [value.shape for value in values]
        y = output if in_place else output.clone()
        if in_place:
            ctx.mark_dirty(output)
        by_slot = y.unflatten(0, (count, -1))
        for (first, end), value in zip(places, values, strict=True):
            by_slot[first:end] += value
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        by_slot = gradient.unflatten(0, (ctx.count, -1))
        parts = zip(ctx.places, ctx.shapes, strict=True)
        return (gradient, None, None, None, *[by_slot[first:end].sum_to_size(shape) for (first, end), shape in parts])
