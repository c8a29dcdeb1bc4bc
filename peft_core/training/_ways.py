"""Which way each module that has a choice executes its products, as a function of a batch's shape.

A low-rank pair chooses by the number of tokens (`_product.cheapest_way`), so its FLOPs are no polynomial of a batch's
shape, but they are one for as long as the choices stay the same. Counting needs the choices of a shape that it has not
run: the tokens that a module sees are linear in `terms`, so a few small passes tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from peft_core.methods import Attached

Ways = tuple[str | None, ...]
"""Of every module that can choose, in their order: None where it has no choice, MIXED where calls of a pass differ."""
MIXED = "mixed"
Call = tuple[torch.Size, bool, bool]
"""Shape of the input, whether it needs a gradient, and whether the frozen map came along."""


def choosers(attached: Attached) -> dict[str, Any]:
    """The modules that choose between ways."""
    return {name: module for name, module in attached.modules.items() if hasattr(module, "way_at")}


def thinnest(ways: Ways) -> Ways:
    """Two thin products for every module, nothing merged and nothing computed again."""
    return tuple(way and "kept" for way in ways)


@contextmanager
def taken(attached: Attached, ways: Ways) -> Iterator[None]:
    """Within it the modules that choose go these ways, whatever the batch."""
    modules = list(choosers(attached).values())
    before = [module.way for module in modules]
    try:
        for module, way in zip(modules, ways, strict=True):
            module.way = None if way == MIXED else way
        yield
    finally:
        for module, way in zip(modules, before, strict=True):
            module.way = way


def calls_of(attached: Attached, forward: Callable[[], object]) -> dict[str, list[Call]]:
    """By site what its module is called with in a forward pass."""
    seen: dict[str, list[Call]] = {name: [] for name in attached.modules}
    with ExitStack() as undo:
        for name, module in attached.modules.items():

            def note(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                seen[name].append((args[0].shape, args[0].requires_grad, len(args) > 1))

            undo.callback(module.register_forward_pre_hook(note).remove)
        undo.enter_context(attached.active())
        forward()
    return seen


class Tokens:
    """Tokens of every call of the modules that choose, as coefficients of a batch's terms.

    Args:
        terms: of the shapes that were tried, as many as a shape has terms.
        calls: what `calls_of` saw of each of them.
    """

    def __init__(
        self, terms: list[tuple[int, ...]], calls: Sequence[Mapping[str, list[Call]]], names: list[str]
    ) -> None:
        self._calls: dict[str, list[tuple[np.ndarray, bool, bool]]] = {}
        for name in names:
            together = zip(*(of_shape[name] for of_shape in calls), strict=True)
            self._calls[name] = [(_coefficients(terms, same), *same[0][1:]) for same in together]

    def ways(self, attached: Attached, terms: tuple[int, ...], merges: bool) -> Ways:
        """The ways of a shape with these terms. merges: whether a step may merge at all."""
        chosen: list[str | None] = []
        for name, module in choosers(attached).items():
            found = {
                module.way_at(int(np.rint(tokens @ terms)), needs, whole and merges)
                for tokens, needs, whole in self._calls[name]
            }
            chosen.append(found.pop() if len(found) == 1 else MIXED if found else None)
        return tuple(chosen)


def _coefficients(terms: Sequence[tuple[int, ...]], calls: tuple[Call, ...]) -> np.ndarray:
    tokens = [shape[:-1].numel() for shape, _, _ in calls]
    return np.linalg.solve(np.array(terms, dtype=np.float64), np.array(tokens, dtype=np.float64))
