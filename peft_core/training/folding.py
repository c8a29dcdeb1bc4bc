"""Which modules of a backbone take a batch row by row, so that several runs' rows can go through them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from peft_core.records import Backbone
from peft_core.training.problems import Encoded

PARTS, ROWS = 3, 2
"""Parts of the batch that is tried, and rows of each."""
_KNOWN: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
Seen = dict[str, list[tuple[torch.Size, list[float]]]]
"""By path, for every call, the input's shape and the sums over its parts."""


def not_row_by_row(backbone: Backbone, rows: Encoded) -> set[str]:
    """Paths of the modules whose input for several batches at once is not their inputs one behind the other.

    A table that all rows share, or experts that are given some of the tokens. Found out once for a backbone, by looking
    on at a few different rows together and part by part.
    """
    if backbone.model not in _KNOWN:
        _KNOWN[backbone.model] = _tried(backbone, rows)
    return _KNOWN[backbone.model]


@torch.no_grad()
def _tried(backbone: Backbone, rows: Encoded) -> set[str]:
    device = next(backbone.model.parameters()).device
    batch = rows.batch([row % len(rows) for row in range(PARTS * ROWS)], device)
    whole = _inputs(backbone, batch, PARTS)
    cut = {name: values.tensor_split(PARTS) for name, values in batch.items()}
    parts = [_inputs(backbone, {name: pieces[at] for name, pieces in cut.items()}, 1) for at in range(PARTS)]
    return {path for path in whole if not _follows(whole[path], [part.get(path, []) for part in parts])}


def _follows(whole: list[tuple[torch.Size, list[float]]], parts: list[list[tuple[torch.Size, list[float]]]]) -> bool:
    """Whether every call's input is that of the parts one behind the other."""
    if any(len(part) != len(whole) for part in parts):
        return False
    for at, (shape, sums) in enumerate(whole):
        own = [part[at] for part in parts]
        expected = torch.Size((sum(size[0] for size, _ in own), *own[0][0][1:])) if own[0][0] else torch.Size()
        if shape != expected or any(size != own[0][0] for size, _ in own):
            return False
        if not torch.allclose(torch.tensor(sums), torch.tensor([found[0] for _, found in own]), rtol=1e-3, atol=1e-3):
            return False
    return True


def _inputs(backbone: Backbone, batch: dict[str, Tensor], parts: int) -> Seen:
    """What every module is called with, cut into parts along its rows."""
    seen: Seen = {}
    with _watched(backbone.model, seen, parts):
        backbone.logits(batch)
    return seen


@contextmanager
def _watched(model: nn.Module, seen: Seen, parts: int) -> Iterator[None]:
    with ExitStack() as undo:
        for path, module in model.named_modules():
            undo.callback(module.register_forward_pre_hook(partial(_note, seen, path, parts)).remove)
        yield


def _note(seen: Seen, path: str, parts: int, module: nn.Module, args: tuple[Any, ...]) -> None:
    if args and isinstance(args[0], Tensor):
        pieces = args[0].tensor_split(parts) if args[0].dim() else (args[0],)
        seen.setdefault(path, []).append((args[0].shape, [float(piece.float().sum()) for piece in pieces]))
