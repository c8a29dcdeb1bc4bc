"""Room on the disk that is kept so that a full disk can still be written down as the reason of a failure."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from peft_core.runs.folders import free_bytes

log = logging.getLogger(__name__)
SIZE = 4 * 2**20


class Reserve:
    """A file that is given up when the disk is full. floor: free bytes from which on it is made (again)."""

    def __init__(self, file: Path, floor: int) -> None:
        self._file, self._floor, self._lock = file, floor, threading.Lock()

    def keep(self) -> None:
        """Make the file where it is missing and there is room."""
        with self._lock:
            try:
                if not self._file.exists() and free_bytes(self._file.parent) > self._floor + SIZE:
                    self._file.write_bytes(os.urandom(SIZE))  # nothing that a file system could compress
            except OSError as error:
                log.warning("no room can be kept in reserve: %s", error)

    def spend(self) -> bool:
        """Give the room back to the disk; false where it was spent before."""
        with self._lock:
            try:
                self._file.unlink()
            except OSError:
                return False
            return True
