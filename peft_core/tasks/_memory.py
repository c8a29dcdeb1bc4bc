"""What was read of files, kept while they stay as they are and while it is small."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
MOST_BYTES = 512 * 2**20
MOST_ENTRIES = 64

_kept: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()


def remembered(key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """What `make` gives, kept under a key (which holds path, time and size of a file); the oldest leave first."""
    with _lock:
        if key in _kept:
            known: T = _kept[key]
            return known
    made = make()
    with _lock:
        _kept[key] = made
        while len(_kept) > 1 and (len(_kept) > MOST_ENTRIES or sum(map(size_of, _kept.values())) > MOST_BYTES):
            _kept.pop(next(iter(_kept)))
    return made


def size_of(value: Any) -> int:
    """Bytes of the arrays inside a value; what holds none counts nothing."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    if isinstance(value, tuple):
        return sum(map(size_of, value[:8]))
    return sum(map(size_of, vars(value).values())) if hasattr(value, "__dataclass_fields__") else 0
