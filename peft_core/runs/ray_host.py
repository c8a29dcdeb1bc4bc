"""What runs on a node of the cluster: an actor that starts the same worker process as the process executor does.

So a crash, a hang, memory, threads and the log are told in the same way, and the curves are the same. The actor relays
the worker's reports in numbered batches that are asked for, and keeps the run's files in the storage up to date.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

import peft_core
from peft_core.records import RunState
from peft_core.runs.confinement import PREFIX
from peft_core.runs.executors import Ending, Inbox
from peft_core.runs.job import Job, Report
from peft_core.runs.machine import oom_kills
from peft_core.runs.numbering import (
    CHECKPOINTS,
    NOTES,
    checkpoint_name,
    fitting,
    keep_fitting,
    read_notes,
)
from peft_core.runs.process import ProcessWorker
from peft_core.runs.storage import Storage

log = logging.getLogger(__name__)
MARK = ".on-this-node"
"""A file that is in a comparison's folder; a node that does not see it does not see the folder."""
OWN_PREFIX, HELD = "ranklab-node-", ".held"
"""Of the folder of a job on a node whose files are in a storage, and the file in it that is locked meanwhile."""
BATCH, MOST_WAITING = 500, 2000
"""Reports of one answer, and reports that wait before the worker itself has to."""
LOG_BYTES = 65_536
TRIES = 3
BOUNDS = ("RANKLAB_PUBLIC", "RANKLAB_MAX_MODEL_GB", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
"""What a public page sets for its workers, beside the names with the prefix of `confinement.py`."""


class Full(Inbox):
    """An inbox that lets a worker wait while too much is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def put(self, report: Report) -> None:
        while "beat" not in report and self._reports.qsize() >= MOST_WAITING and not self.closed:
            time.sleep(0.02)
        super().put(report)


class Host:
    """What Ray makes an actor of: one job on its node, and then another. Called from several threads."""

    def __init__(self) -> None:
        self._at_work: OnNode | None = None

    def begin(
        self,
        job: dict[str, Any],
        trainer: str,
        threads: int,
        storage: str | None,
        settings: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """`OnNode.begin` of a new job. settings: what its worker gets instead of this node's own environment."""
        self.close()
        for name in {name for name in os.environ if _of_workers(name)} if settings is not None else ():
            del os.environ[name]
        os.environ.update(settings or {})
        self._at_work = OnNode()
        return self._at_work.begin(job, trainer, threads, storage)

    def take(self, after: int, seconds: float) -> dict[str, Any]:
        """`OnNode.take` of the job at work."""
        assert self._at_work is not None
        return self._at_work.take(after, seconds)

    def stop(self, run: str | None) -> None:
        """Ask one run, or all, to stop."""
        if self._at_work is not None:
            self._at_work.stop(run)

    def close(self) -> None:
        """End the worker, with everything it started."""
        if self._at_work is not None:
            self._at_work.close()
            self._at_work = None


class OnNode:
    """One job on a node."""

    def __init__(self) -> None:
        self._waiting: list[Report] = []
        self._first = 1
        self._ready = threading.Condition()
        self._ending: dict[str, str] | None = None
        self._storage: Storage | None = None
        self._own: Path | None = None
        self._held: FileLock | None = None
        self._inbox = Full()
        self._worker: ProcessWorker | None = None

    def begin(self, job: dict[str, Any], trainer: str, threads: int, storage: str | None) -> dict[str, Any]:
        """Start the job's worker.

        Args:
            storage: URL for the files of the runs; None: the job's folder, which this node must see.

        Returns:
            `refused`, a sentence, where it cannot be done here; and `version` of this package on this node.
        """
        self._job = Job.model_validate(job)
        answer: dict[str, Any] = {"version": peft_core.__version__, "refused": None}
        if storage is None:
            if not (self._job.folder / MARK).exists():
                said = (
                    f"this node does not see the folder {self._job.folder}; set RANKLAB_STORAGE to what all nodes reach"
                )
                return answer | {"refused": said}
        else:
            self._storage = Storage(storage)
            self._own, self._held = _own_folder()
            self._job = self._job.model_copy(update={"folder": self._own})
        self._files = Files(self._job, self._storage)
        try:
            self._files.fetch()
        except OSError as error:
            return answer | {"refused": f"the storage cannot be read: {error}"}
        early = self._job.folder / f"starting-{self._job.share}.log"
        self._worker = ProcessWorker(trainer, threads, early, oom_kills, self._inbox)
        self._worker.begin(self._job)
        threading.Thread(target=self._relay, args=(self._worker,), name="relay", daemon=True).start()
        return answer

    def take(self, after: int, seconds: float) -> dict[str, Any]:
        """The reports behind number `after`, which need not be kept any more; waits so long for one.

        Returns:
            `first`: the number of the first of `reports`; `ending` (how, reason, log) behind the last one; `silent`:
            seconds since the worker's last sign of life.
        """
        with self._ready:
            del self._waiting[: max(0, after + 1 - self._first)]
            self._first = max(self._first, after + 1)
            self._ready.notify_all()
            self._ready.wait_for(lambda: self._waiting or self._ending, seconds)
            reports = self._waiting[:BATCH]
            last = len(reports) == len(self._waiting)
            ending = self._ending if last else None
        silent = 0.0 if len(reports) == BATCH else time.monotonic() - self._inbox.last_sign
        return {"first": self._first, "reports": reports, "ending": ending, "silent": silent}

    def stop(self, run: str | None) -> None:
        """Ask one run, or all, to stop."""
        if self._worker is not None:
            self._worker.stop(run)

    def close(self) -> None:
        """End the worker, with everything it started."""
        self._inbox.closed = True
        if self._worker is not None:
            self._worker.kill()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
        if self._held is not None:
            self._held.release()

    def _relay(self, worker: ProcessWorker) -> None:
        try:
            ending = self._follow(worker)
        except OSError as error:
            log.exception("the storage cannot be written")
            worker.kill()
            ending = Ending("failed", f"the storage cannot be written: {error}")
        said = {"how": ending.how, "reason": ending.reason, "log": self._log_tail()}
        with self._ready:
            self._ending = said
            self._ready.notify_all()

    def _follow(self, worker: ProcessWorker) -> Ending:
        while True:
            ending = worker.ended()
            for report in self._inbox.take(0.0 if ending else 0.05):
                self._files.follow(report)
                if "saved" not in report:
                    self._pass(report)
            if ending:
                return ending

    def _pass(self, report: Report) -> None:
        with self._ready:
            self._ready.wait_for(lambda: len(self._waiting) < MOST_WAITING or self._inbox.closed)
            self._waiting.append(report)
            self._ready.notify_all()

    def _log_tail(self) -> str:
        try:
            return (self._job.folder / "worker.log").read_bytes()[-LOG_BYTES:].decode(errors="replace")
        except OSError:
            return ""


class Files:
    """A job's files on this node and in the storage. storage: None where this node sees the comparison's folder."""

    def __init__(self, job: Job, storage: Storage | None) -> None:
        self._job, self._folder, self._storage = job, job.folder, storage
        self._shared = f"comparisons/{job.comparison}/shared"

    def fetch(self) -> None:
        """Bring here what the runs begin with; of checkpoints the newest whose events are all stored."""
        mates = {
            run for group in (self._job.plan.groups_with(self._job.runs) if self._job.plan else []) for run in group
        }
        for run in sorted({*self._job.runs, *mates}) if self._job.resume or mates else ():
            if self._storage is not None:
                self._fetch_checkpoint(run, self._storage)
            elif run in self._job.runs:
                keep_fitting(self._folder / run, self._job.events.get(run, 0))
        if self._storage is not None and not self._job.places:
            self._storage.get_folder(self._shared, self._folder)

    def follow(self, report: Report) -> None:
        """See to the storage before a report is passed on that promises something of it."""
        if self._storage is None:
            return
        if saved := report.get("saved"):
            _again(lambda: self._keep_checkpoint(saved["run"]))
        event = report.get("event", {})
        if event.get("event") == "state" and RunState(event["state"]).ended:
            _again(lambda: self._keep_end(event["run"], RunState(event["state"])))

    def _fetch_checkpoint(self, run: str, storage: Storage) -> None:
        folder, place = self._folder / run / CHECKPOINTS, f"{place_of(self._job, run)}/{CHECKPOINTS}"
        if not storage.get(f"{place}/{NOTES}", folder / NOTES):
            return
        notes = read_notes(self._folder / run)
        for step in fitting(notes, self._job.events.get(run, 0)):
            if storage.get(f"{place}/{checkpoint_name(step)}", folder / checkpoint_name(step)):
                return

    def _keep_checkpoint(self, run: str) -> None:
        """The checkpoints first, then the notes of them, then the old ones go."""
        assert self._storage is not None
        folder, place = self._folder / run / CHECKPOINTS, f"{place_of(self._job, run)}/{CHECKPOINTS}"
        names = {checkpoint_name(step) for step in read_notes(self._folder / run)}
        there = {name for name in self._storage.names(place) if name.startswith("step-")}
        for name in sorted(names - there):
            with suppress(FileNotFoundError):  # it was old enough to be removed meanwhile
                self._storage.put(folder / name, f"{place}/{name}")
        self._storage.put(folder / NOTES, f"{place}/{NOTES}")
        for name in there - names:
            self._storage.drop(f"{place}/{name}")
        for file in () if self._job.places else self._folder.glob("*.json"):
            self._storage.put(file, f"{self._shared}/{file.name}")

    def _keep_end(self, run: str, state: RunState) -> None:
        assert self._storage is not None
        if self._job.places:
            if state in (RunState.FINISHED, RunState.FAILED):
                self._storage.remove(place_of(self._job, run))
            return
        if (self._folder / run).is_dir():
            self._storage.put_folder(self._folder / run, place_of(self._job, run), without=(CHECKPOINTS,))
            if (self._folder / run / CHECKPOINTS / NOTES).exists():
                self._keep_checkpoint(run)


def _own_folder() -> tuple[Path, FileLock]:
    """A folder for a job's files, and the lock by which it is held; those whose holders were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{OWN_PREFIX}*/{HELD}"):
        with suppress(OSError), FileLock(left, timeout=0, thread_local=False):  # else it is held, or another user's
            shutil.rmtree(left.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=OWN_PREFIX))
    lock = FileLock(folder / HELD, thread_local=False)
    lock.acquire()
    return folder, lock


def worker_settings() -> dict[str, str]:
    """The bounds of workers as they are set where the comparison is, which hold on every node."""
    return {name: value for name, value in os.environ.items() if _of_workers(name)}


def _of_workers(name: str) -> bool:
    return name.startswith(PREFIX) or name in BOUNDS


def place_of(job: Job, run: str) -> str:
    """The folder of a run in the storage."""
    return job.places.get(run) or f"comparisons/{job.comparison}/{run}"


def _again(work: Callable[[], None]) -> None:
    """What a network may spoil is tried three times."""
    for left in reversed(range(TRIES)):
        try:
            work()
            return
        except OSError:
            if not left:
                raise
            time.sleep(1.0)


def described(job: Job) -> dict[str, Any]:
    """A job as the actor takes it."""
    found: dict[str, Any] = json.loads(job.model_dump_json())
    return found
