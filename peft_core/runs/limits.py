"""The times and sizes that a supervisor keeps to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Times in seconds, sizes in bytes.

    beat: a worker that gives no sign of life for so long is ended. stall: so is one that reports no work (a download
    reports none). stop: how long a worker may take to stop when asked, before it is ended. total: how long a
    comparison may work; None: as long as it takes. store: how long the store may stay locked before a comparison is
    given up. free: room on the disk without which nothing is started. spare: how long after a start the next spare
    worker is made ready, so that it does not take the processor from the first steps. undo: how long a comparison that
    was deleted on the page can be brought back.
    """

    beat: float = 20.0
    stall: float = 900.0
    stop: float = 8.0
    total: float | None = None
    store: float = 120.0
    free: int = 200 * 2**20
    spare: float = 10.0
    undo: float = 30.0
