"""One file from the Hub at a time, with a progress that is heard instead of drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_core.backbones._hub_calls import TIMEOUT
from peft_core.backbones._hub_ids import HubId
from peft_core.records import public_mode

Progress = Callable[[float, str], None]
"""Hears of a download: the share that is done, from 0 to 1, and a sentence."""


def token() -> bool | None:
    """No login of the installation's owner for strangers; else the stored one."""
    return False if public_mode() else None


def fetch_file(hub: HubId, commit: str, name: str, meter: Meter | None = None) -> Path:
    """One file of a commit, downloaded where it is missing. A transfer that breaks off goes on where it stopped."""
    from huggingface_hub import hf_hub_download

    meter = meter or Meter(hub.repository, 0, None)
    meter.again()
    bar = _bar(meter)
    return Path(
        hf_hub_download(hub.repository, name, revision=commit, token=token(), etag_timeout=TIMEOUT, tqdm_class=bar)
    )


class Meter:
    """Adds up what a download of several files has fetched and tells it now and then. total: bytes of all files."""

    SECONDS = 0.5

    def __init__(self, repository: str, total: int, progress: Progress | None) -> None:
        self._repository, self._total, self._progress = repository, max(total, 1), progress
        self._before = self._now = self._size = 0
        self._told = 0.0

    def begin(self, size: int) -> None:
        """The next file, of so many bytes."""
        self._before, self._now, self._size = self._before + self._size, 0, size
        self._tell(0.0)

    def again(self) -> None:
        """The same file from its start."""
        self._now = 0

    def add(self, count: int) -> None:
        self._now += count
        self._tell(self.SECONDS)

    def say(self, sentence: str) -> None:
        if self._progress is not None:
            self._progress(self._share, sentence)

    @property
    def _share(self) -> float:
        return min(1.0, (self._before + min(self._now, self._size)) / self._total)

    def _tell(self, seconds: float) -> None:
        if time.monotonic() - self._told >= seconds:
            self._told = time.monotonic()
            self.say(f"downloading {self._repository}, {self._share:.0%} of {self._total / 1e6:,.1f} MB")


def _bar(meter: Meter) -> Any:
    """A progress bar as the Hub's client wants one, which draws nothing and feeds a meter."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            meter.add(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes on the wire, which are not counted."""

        def set_transfer_postfix_str(self, postfix: str = "", refresh: bool = False) -> None:
            """Their rate, which is not shown."""

    return Bar
