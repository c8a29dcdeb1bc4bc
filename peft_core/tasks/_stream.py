"""Endless streams of generated rows, cut into splits that cannot overlap.

A row's split depends on nothing but its key, the text of what it was made from: a hash of the key sends one
row in five to evaluation. No key comes twice in a stream, and a stream goes on where a shorter one ended, so the first
rows are the same however many are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, Protocol

import numpy as np

from peft_core.records import InputError
from peft_core.tasks._contract import Rows, Split, TaskInfo

Draft = tuple[str, Callable[[], Sequence[tuple[Any, ...]]]]
"""A key, and what makes the rows (one or more, a label last) once it is known that they are wanted."""

EVAL_SHARE = 5
MAX_ROWS = 20_000
MAX_EVAL_ROWS = 4_000


def split_of(key: str) -> Split:
    digest = blake2b(key.encode(), digest_size=4).digest()
    return "eval" if int.from_bytes(digest, "little") % EVAL_SHARE == 0 else "train"


def check_count(field: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise InputError(field, count, f"it must be a whole number from 1 to {limit}")


def check_options(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in known:
            allowed = f"the options are {', '.join(known)}" if known else "this task has no options"
            raise InputError(f"task_options.{name}", value, allowed)


@dataclass(frozen=True)
class TextStream:
    """Rows of text from a function that drafts one row (or a small group of rows) at a time.

    name: goes into the random state, so that tasks differ under one seed. columns: names of the text columns.
    dtype: of the labels; None where a row is its columns and no label.
    """

    name: str
    columns: tuple[str, ...]
    draft: Callable[[Random], Draft]
    dtype: type | None = np.int64

    def pieces(self, split: Split, seed: int) -> Iterator[tuple[Any, ...]]:
        rng = Random(f"{self.name}:{split}:{seed}")
        seen: set[str] = set()
        while True:
            key, make = self.draft(rng)
            if split_of(key) == split and key not in seen:
                seen.add(key)
                yield from make()

    def rows(self, split: Split, count: int, seed: int) -> Rows:
        check_count(f"{split}_rows", count, MAX_ROWS if split == "train" else MAX_EVAL_ROWS)
        pieces = self.pieces(split, seed)
        table = [next(pieces) for _ in range(count)]
        texts = {name: [row[place] for row in table] for place, name in enumerate(self.columns)}
        return Rows(texts, None if self.dtype is None else np.array([row[-1] for row in table], dtype=self.dtype))


class Stream(Protocol):
    def rows(self, split: Split, count: int, seed: int) -> Rows: ...


@dataclass(frozen=True)
class StreamTask:
    """A task whose rows are the beginning of a stream, and that has no options."""

    info: TaskInfo
    stream: Stream
    teacher: None = None

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(options, self.info.options)

    def rows(self, split: Split, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        self.check(options)
        return self.stream.rows(split, count, seed)
