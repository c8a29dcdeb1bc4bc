"""Archives of finished runs, made behind the page: asked for, waited for, fetched, and swept away after an hour."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft_core.records import InputError
from peft_core.runs import Refused
from ui.child import CommandFailed, Commands

log = logging.getLogger(__name__)
FORMATS = ("native", "peft", "merged")
MOST_WAITING = 8
KEPT_SECONDS = 3600.0
Make = Callable[[str, str, Path], None]
"""Writes the folder of a run in a format; raises CommandFailed with the sentence for the visitor."""


@dataclass
class Job:
    """An export that was asked for. message: why it failed."""

    run: str
    kind: str
    begun: float
    state: Literal["waiting", "ready", "failed"] = "waiting"
    message: str = ""


class Exports:
    """Makes archives one after the other in a thread of its own. All methods may be called from any thread."""

    def __init__(self, folder: Path, make: Make) -> None:
        self._folder, self._make = folder, make
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="export")

    def begin(self, run: str, kind: str) -> str:
        """Have an archive made; its id. One that is being made or ready is not made twice.

        Raises:
            InputError: there is no such format. Refused: too many are waiting.
        """
        if kind not in FORMATS:
            raise InputError("format", kind, "it must be one of " + ", ".join(FORMATS))
        self.sweep(KEPT_SECONDS)
        with self._lock:
            for name, job in self._jobs.items():
                if (job.run, job.kind) == (run, kind) and job.state != "failed":
                    return name
            if sum(job.state == "waiting" for job in self._jobs.values()) >= MOST_WAITING:
                raise Refused("Many exports are being made; try again when one of them is ready.")
            name = secrets.token_hex(16)
            self._jobs[name] = Job(run, kind, time.monotonic())
        self._worker.submit(self._work, name)
        return name

    def job(self, name: str) -> Job:
        """How far an export is.

        Raises:
            InputError: there is none of this id.
        """
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise InputError("job", name, "there is no such export any more; ask for it again")
        return job

    def archive(self, name: str) -> tuple[Path, str]:
        """The file of an export that is ready, and the name to give it.

        Raises:
            InputError: it is not ready.
        """
        job = self.job(name)
        if job.state != "ready":
            raise InputError("job", name, "this export is not ready")
        return self._file(name), f"ranklab-{job.run}-{job.kind}.zip"

    def sweep(self, older_than: float = 0.0) -> None:
        """Remove archives that are older, in seconds, and whatever an earlier server left."""
        with self._lock:
            old = [
                name
                for name, job in self._jobs.items()
                if job.state != "waiting" and time.monotonic() - job.begun >= older_than
            ]
            for name in old:
                del self._jobs[name]
            kept = set(self._jobs)
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name.partition(".")[0] not in kept:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def close(self) -> None:
        """Make no more."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.zip"

    def _work(self, name: str) -> None:
        job, folder = self._jobs[name], self._folder / f"{name}.folder"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make(job.run, job.kind, folder)
            pack(folder, self._file(name), f"{job.run}-{job.kind}")
            job.state = "ready"
        except CommandFailed as error:
            job.message, job.state = str(error), "failed"
        except OSError as error:
            log.warning("an export failed: %s", error)
            job.message, job.state = f"The archive could not be written ({error.strerror or error}).", "failed"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def pack(folder: Path, to: Path, inside: str) -> None:
    """The files of a folder as an archive that has them under `inside`, uncompressed: weights hardly shrink."""
    partial = to.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{inside}/{path.relative_to(folder)}")
    partial.replace(to)


class ExportCommand:
    """Runs `export`."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def __call__(self, run: str, kind: str, to: Path) -> None:
        self._commands.run(["export", run, "--format", kind, "--to", str(to)], f"export of {run} as {kind}")
