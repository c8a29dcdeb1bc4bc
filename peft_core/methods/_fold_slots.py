"""Whose rows a folded batch holds: the batches of several runs one behind the other, a slot for each run.

Nothing that decides how a batch is computed may depend on what the runs have learned so far: slots, their order, and
which of them are multiplied together follow from the runs' configs. So a run's numbers do not change, to the last bit,
when another run fails, is cancelled, or has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stretch:
    """Neighbouring slots that are treated alike. first: the place of the first one among those whose rows are there."""

    first: int
    slots: tuple[int, ...]
    kind: Any

    @property
    def end(self) -> int:
        return self.first + len(self.slots)


class Slots:
    """The slots whose rows are in the batch now: all, or within `only` some neighbouring ones."""

    def __init__(self, count: int) -> None:
        self.all = self.now = tuple(range(count))
        self.narrowed = False

    @contextmanager
    def only(self, slots: tuple[int, ...]) -> Iterator[None]:
        """Within it the batch holds the rows of these slots alone."""
        before = self.now, self.narrowed
        self.now, self.narrowed = slots, True
        try:
            yield
        finally:
            self.now, self.narrowed = before

    def stretches(self, kind: Callable[[int], Hashable]) -> list[Stretch]:
        """Neighbouring slots of equal kind, taken together."""
        found, first = [], 0
        for label, members in groupby(self.now, key=kind):
            slots = tuple(members)
            found.append(Stretch(first, slots, label))
            first += len(slots)
        return found

    def rows(self, x: Tensor, stretches: list[Stretch]) -> list[Tensor]:
        """The part of x (slots * n, ...) of each of all stretches: views of its rows."""
        each = self.each(x)
        return [x] if len(stretches) == 1 else list(x.split([each * len(stretch.slots) for stretch in stretches]))

    def each(self, x: Tensor) -> int:
        """Rows that a slot has of x."""
        each, over = divmod(len(x), len(self.now))
        if over:
            raise RuntimeError(f"a batch of {len(x)} rows does not hold those of {len(self.now)} runs")
        return each


def joined(parts: list[Tensor]) -> Tensor:
    """The parts one behind the other; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Foldable(Protocol):
    """What a run has put into the backbone in a way of its own, and how several runs' are there at once."""

    @property
    def place(self) -> Any:
        """Where it is: at equal places runs meet."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens that it adds to every row: runs that add different numbers cannot be folded."""
        ...

    @property
    def size(self) -> int:
        """Neighbours of equal size are computed together."""
        ...

    @property
    def apart(self) -> str | None:
        """Path of a module that must see this run's rows by themselves, if there is one."""
        ...

    def folded(self, model: nn.Module, slots: Slots, members: Mapping[int, Any]) -> AbstractContextManager[None]:
        """Within it all members, by slot, are in the backbone."""
        ...
