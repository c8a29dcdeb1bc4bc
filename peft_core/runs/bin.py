"""Deleted comparisons: hidden at once, removed for good when the time to undo is over.

The store keeps the mark, so a crash loses nothing: the next server on the folder hides what was deleted as before and
gives it the whole time to undo again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from peft_core.records import ComparisonRow, InputError
from peft_core.runs.errors import Refused
from peft_core.runs.store import Store

log = logging.getLogger(__name__)
LONGEST_WAIT = 1.0


class Bin:
    """Hidden comparisons of a store and when they are removed. All methods may be called from any thread.

    Args:
        removed: called with the id of a comparison that has been removed from the store.
        seconds: the time to undo.
        empties: whether this process removes anything; one process on a folder does.
    """

    def __init__(self, store: Store, removed: Callable[[str], None], seconds: float, *, empties: bool) -> None:
        self._store, self._removed, self._seconds = store, removed, seconds
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._due = {row.id: time.monotonic() + seconds for row in store.hidden()}
        self._thread = threading.Thread(target=self._run, name="bin", daemon=True) if empties else None
        if self._thread is not None:
            self._thread.start()

    def put(self, comparison_id: str) -> float:
        """Hide a comparison; return the seconds in which that can be undone.

        Raises:
            InputError: there is none. Refused: it is at work.
        """
        self._store.hide(comparison_id)
        with self._lock:
            self._due[comparison_id] = time.monotonic() + self._seconds
        return self._seconds

    def take_back(self, comparison_id: str) -> None:
        """Show a comparison again.

        Raises:
            InputError: it is not among the deleted ones any more.
        """
        if not self._store.show(comparison_id):
            raise InputError("id", comparison_id, "the time to undo is over, or it was not deleted")
        with self._lock:
            self._due.pop(comparison_id, None)

    def content(self) -> list[tuple[ComparisonRow, float]]:
        """What can still be taken back, with the seconds left."""
        now = time.monotonic()
        with self._lock:
            due = dict(self._due)
        return [(row, max(0.0, due.get(row.id, now) - now)) for row in self._store.hidden()]

    def close(self) -> None:
        """Remove nothing more; what is hidden stays so."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2 * LONGEST_WAIT)

    def _run(self) -> None:
        while not self._closing.wait(min(LONGEST_WAIT, self._seconds / 4)):
            with self._lock:
                due = [name for name, when in self._due.items() if when <= time.monotonic()]
            for comparison_id in due:
                try:
                    if self._store.remove_hidden(comparison_id):
                        self._removed(comparison_id)
                except (sqlite3.OperationalError, Refused, OSError) as error:
                    log.warning("%s is removed later: %s", comparison_id, error)
                    continue
                with self._lock:
                    self._due.pop(comparison_id, None)
