"""How training is carried out: the contract of an executor, and the one that trains in a thread.

An executor starts workers; a worker trains one job and puts its reports into an inbox. The process executor
(`process.py`) is the default. The thread executor is for tests and for hosts where a subprocess cannot have the
accelerator: it shares the process, so it cannot survive a crash, and a worker that does not stop is left behind.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import Literal, Protocol

from peft_core.records import Offer
from peft_core.runs.job import DEFAULT_TRAINER, Job, Report, perform
from peft_core.runs.machine import usable_cores


@dataclass(frozen=True)
class Ending:
    """How a worker ended. reason: a sentence where it did not end well.

    done: it came to its end. failed: training as a whole failed. killed: somebody ended the process from outside.
    out_of_memory: the system did. stopped: `kill` was called.
    """

    how: Literal["done", "failed", "killed", "out_of_memory", "stopped"]
    reason: str = ""


class Inbox:
    """Reports of a worker, with the monotonic time of its last sign of life and of its last piece of work."""

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.last_sign = self.last_work = time.monotonic()

    def put(self, report: Report) -> None:
        self.last_sign = time.monotonic()
        if "beat" not in report:
            self.last_work = self.last_sign
            self._reports.put(report)

    def take(self, timeout: float) -> list[Report]:
        """All reports that are there; where there are none, those that come within `timeout` seconds."""
        taken = []
        try:
            taken.append(self._reports.get(timeout=timeout))
            while True:
                taken.append(self._reports.get_nowait())
        except queue.Empty:
            return taken


class Worker(Protocol):
    """A job at work."""

    inbox: Inbox

    def stop(self, run: str | None) -> None:
        """Ask one run, or all (None), to stop. Returns at once."""
        ...

    def kill(self) -> None:
        """End it without asking, with everything it started."""
        ...

    def ended(self) -> Ending | None:
        """How it ended; None while it works. Once it has ended, all of its reports are in the inbox."""
        ...


class Executor(Protocol):
    """Starts workers."""

    def warm(self, spares: int = 1) -> None:
        """Make ready, in the background, what lets the next workers start at once: so many, where that is of use."""
        ...

    def offer(self, several: bool) -> Offer:
        """What a comparison that starts now may use. several: it is long enough for more than one worker."""
        ...

    def start(self, job: Job) -> Worker: ...

    def processes(self) -> list[int]:
        """The ids of the processes that it runs now."""
        ...

    def alive(self) -> bool:
        """Whether workers can be started, as far as it knows."""
        ...

    def close(self) -> None:
        """End what waits. Workers at work are ended by whoever started them."""
        ...


class ThreadWorker:
    """A job in a thread of this process."""

    def __init__(self, job: Job, trainer: str) -> None:
        self.inbox = Inbox()
        self._job, self._trainer = job, trainer
        self._stopped: set[str | None] = set()
        self._error = ""
        self._left_behind = False
        self._thread = threading.Thread(target=self._train, name=f"{job.comparison} training", daemon=True)
        self._thread.start()

    def stop(self, run: str | None) -> None:
        self._stopped = self._stopped | {run}

    def kill(self) -> None:
        self.stop(None)
        self._left_behind = True

    def ended(self) -> Ending | None:
        if self._left_behind:
            return Ending("stopped")
        if self._thread.is_alive():
            self.inbox.last_sign = time.monotonic()
            return None
        return Ending("failed", self._error) if self._error else Ending("done")

    def _train(self) -> None:
        perform(self._job, self._trainer, self._send, self._asked_to_stop)

    def _asked_to_stop(self, run: str) -> bool:
        return run in self._stopped or None in self._stopped

    def _send(self, report: Report) -> None:
        if "error" in report:
            self._error = report["error"]
        if not self._left_behind:
            self.inbox.put(report)


class ThreadExecutor:
    """Trains in threads of this process, with one worker a comparison: torch's number of threads is the process's."""

    def __init__(self, trainer: str = DEFAULT_TRAINER) -> None:
        self._trainer = trainer

    def warm(self, spares: int = 1) -> None:
        """Nothing waits: the process is warm."""

    def offer(self, several: bool) -> Offer:
        return Offer(workers=1, cores=usable_cores(), own_threads=False)

    def start(self, job: Job) -> Worker:
        return ThreadWorker(job, self._trainer)

    def processes(self) -> list[int]:
        return []

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing waits."""
