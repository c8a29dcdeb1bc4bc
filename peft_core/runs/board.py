"""What viewers see: one snapshot of each comparison in memory, kept up to date from the store.

A look at a snapshot reads no file. Whoever has changed the store calls `refresh`, which reads what is new and wakes
those that wait. Events older than the newest `KEPT_EVENTS` are read from the store when somebody asks for them.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from peft_core.records import ComparisonRow, RunRow, View
from peft_core.runs.store import Store

log = logging.getLogger(__name__)
KEPT_EVENTS = 4_000
"""Of each comparison: about 6 MB."""
MARGIN = 1.25
"""So many times as many are there before the oldest are let go."""
KEPT_COMPARISONS = 16


@dataclass
class _Snapshot:
    comparison: ComparisonRow
    runs: dict[str, RunRow]
    seq: int
    events: list[dict[str, Any]] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    first: int = 0
    """Events up to this one are in the store only."""
    run_rows: tuple[RunRow, ...] = ()
    stale: bool = False


class Board:
    """Snapshots of comparisons. All methods may be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition(threading.RLock())
        self._count = 0
        self._snapshots: OrderedDict[str, _Snapshot] = OrderedDict()
        self._extras: dict[str, dict[str, Any]] = {}
        self._listed: dict[str, ComparisonRow] | None = None
        self.on_stored: Callable[[float, int], None] | None = None
        """Hears of every write of reports: seconds that the oldest of them waited for the store, and their number."""

    @property
    def count(self) -> int:
        """Rises with every change of anything."""
        return self._count

    def view(self, comparison_id: str, after: int = 0) -> View:
        """The rows as they are, and the events after `after`. What it returns is shared: do not change it."""
        with self._changed:
            shot = self._current(comparison_id)
            seq, in_memory = shot.seq, after >= shot.first
            events = shot.events[bisect_right(shot.seqs, after) :] if in_memory else []
            comparison, runs = shot.comparison, shot.run_rows
        if not in_memory:  # read while others look
            stored = self._store.view(comparison_id, after, only=()).events
            events = [event for event in stored if event["seq"] <= seq]
        return View.model_construct(seq=max(seq, after), comparison=comparison, runs=runs, events=events)

    def rows(self, comparison_id: str) -> tuple[ComparisonRow, tuple[RunRow, ...]]:
        """A comparison and its runs as they are. Never reads events, however many there are."""
        with self._changed:
            shot = self._current(comparison_id)
            return shot.comparison, shot.run_rows

    def comparisons(self) -> list[ComparisonRow]:
        """All comparisons, the newest first."""
        with self._changed:
            if self._listed is None:
                self._listed = {row.id: row for row in self._store.comparisons()}
            return [self._latest(row) for row in self._listed.values()]

    def recent(self, newest: int, seen_by: str | None = None) -> list[ComparisonRow]:
        """The newest comparisons and all that have not ended, the newest first; of those that a visitor may see."""
        with self._changed:
            return [self._latest(row) for row in self._store.comparisons(newest, seen_by)]

    def refresh(self, comparison_id: str, runs: Collection[str] | None = None) -> None:
        """Take over what the store has new: of these runs, or of all. Keeps the old snapshot where it is locked."""
        with self._changed:
            shot = self._snapshots.get(comparison_id)
            if shot is not None:
                try:
                    self._update(shot, self._store.view(comparison_id, shot.seq, only=runs), whole=runs is None)
                except sqlite3.OperationalError as error:
                    log.warning("the store cannot be read now: %s", error)
                    shot.stale = True
                if self._listed is not None and comparison_id in self._listed:
                    self._listed[comparison_id] = shot.comparison
            self._tell(listed=shot is None)

    def note(self, comparison_id: str, **extras: Any) -> None:
        """Facts that only this process knows: queue_place, eta_seconds. None takes a fact away."""
        with self._changed:
            known = self._extras.setdefault(comparison_id, {})
            if known | extras != known:
                known.update(extras)
                if shot := self._snapshots.get(comparison_id):
                    shot.comparison = shot.comparison.model_copy(update=known)
                self._tell(listed=False)

    def forget(self, comparison_id: str | None = None) -> None:
        """The store may have changed anywhere, or a comparison is gone: look again when asked."""
        with self._changed:
            if comparison_id is not None:
                self._snapshots.pop(comparison_id, None)
                self._extras.pop(comparison_id, None)
            else:
                for shot in self._snapshots.values():
                    shot.stale = True
            self._tell(listed=True)

    def wait(self, until: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for changes until `until()` holds; false where the time was over before."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not until():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _tell(self, *, listed: bool) -> None:
        """Wake those that wait; listed: the list of all comparisons has to be read again."""
        if listed:
            self._listed = None
        self._count += 1
        self._changed.notify_all()

    def _latest(self, row: ComparisonRow) -> ComparisonRow:
        return row.model_copy(update=self._extras[row.id]) if row.id in self._extras else row

    def _current(self, comparison_id: str) -> _Snapshot:
        shot = self._snapshots.get(comparison_id)
        if shot is None:
            view = self._store.view(comparison_id)
            shot = self._snapshots[comparison_id] = _Snapshot(view.comparison, {}, 0)
            self._update(shot, view, whole=True)
            while len(self._snapshots) > KEPT_COMPARISONS:
                self._snapshots.popitem(last=False)
        elif shot.stale:
            try:
                self._update(shot, self._store.view(comparison_id, shot.seq), whole=True)
            except sqlite3.OperationalError as error:
                log.warning("the store cannot be read now: %s", error)
        self._snapshots.move_to_end(comparison_id)
        return shot

    def _update(self, shot: _Snapshot, view: View, *, whole: bool) -> None:
        shot.comparison = self._latest(view.comparison)
        if whole:
            shot.runs, shot.stale = {run.run: run for run in view.runs}, False
        else:
            shot.runs.update((run.run, run) for run in view.runs)
        shot.run_rows = tuple(shot.runs.values())
        shot.events += view.events
        shot.seqs += [event["seq"] for event in view.events]
        shot.seq = view.seq
        if len(shot.events) > MARGIN * KEPT_EVENTS:
            shot.first = shot.seqs[-KEPT_EVENTS - 1]
            del shot.events[:-KEPT_EVENTS], shot.seqs[:-KEPT_EVENTS]
