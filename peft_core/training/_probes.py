"""What a pass that counts FLOPs needs: a batch of a shape, a counter, eager attention, and gradients put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from peft_core.methods import Attached
from peft_core.training.problems import Encoded

Shape = tuple[int, ...]
"""Rows, and the widths of what is read and written: (rows,), (rows, width) or (rows, width, decoder width)."""


def probe_batch(rows: Encoded, shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """A batch of this shape: the first row's first token again and again, and its last."""
    count, *widths = shape
    if rows.images is not None:
        return rows.batch([place % len(rows) for place in range(count)], device)
    assert rows.tokens is not None
    tokens = {
        name: [_stretched(values[0], widths[name.startswith("decoder")])] * count
        for name, values in rows.tokens.items()
    }
    return Encoded(tokens, None, torch.zeros(count), rows.pad).batch(range(count), device)


def _stretched(row: list[int], width: int) -> list[int]:
    return [*row[:1] * (width - 1), row[-1]]


def shape_length(rows: Encoded) -> int:
    """Numbers that a batch's shape has (`counting.Shape`)."""
    if rows.tokens is None:
        return 1
    return 3 if "decoder_input_ids" in rows.tokens else 2


class _NoModules:
    """In place of the counter's record of modules, which takes longer than the pass and is not asked for."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def flop_counter() -> FlopCounterMode:
    """A counter of FLOPs that looks at no modules."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Within it every attention multiplies its matrices one by one, where the counter sees them."""
    configs: dict[int, Any] = {
        id(module.config): module.config for module in model.modules() if hasattr(module, "config")
    }
    chosen = [(config, config._attn_implementation) for config in configs.values() if _chooses(config)]
    try:
        for config, _ in chosen:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, before in chosen:
            config._attn_implementation = before


def _chooses(config: Any) -> bool:
    return getattr(config, "_attn_implementation", None) is not None


@contextmanager
def kept_gradients(attached: Attached) -> Iterator[None]:
    """The gradients afterwards are those that stood before."""
    before = [(parameter, parameter.grad) for parameter in attached.trainable().values()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
