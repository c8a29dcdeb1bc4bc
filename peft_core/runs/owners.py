"""Who works on which comparison: every supervisor holds a lock file, which the system lets go when its process ends."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from peft_core.runs.errors import FolderInUse

log = logging.getLogger(__name__)


class Ownership:
    """This supervisor's own lock under `home`/owners, and with `server` the one that only one server can hold."""

    def __init__(self, home: Path, *, server: bool) -> None:
        self._folder = home / "owners"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.name = secrets.token_hex(6)
        self._locks: list[BaseFileLock] = []
        if server:
            self._hold(home / "server.lock", f"Another RankLab server works on {home}; stop it, or set RANKLAB_HOME.")
        self._hold(self._file(self.name), f"The folder {self._folder} is in use.")

    def ended(self, owner: str) -> bool:
        """Whether that owner's process is gone (or never was)."""
        if owner == self.name or not owner.isalnum():
            return False
        lock = FileLock(self._file(owner))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._file(owner).unlink(missing_ok=True)
        lock.release()
        return True

    def close(self) -> None:
        """Let go of all locks."""
        self._file(self.name).unlink(missing_ok=True)
        for lock in self._locks:
            lock.release()

    def _hold(self, file: Path, refusal: str) -> None:
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.close()
            raise FolderInUse(refusal) from None
        self._locks.append(lock)

    def _file(self, owner: str) -> Path:
        return self._folder / f"{owner}.lock"
