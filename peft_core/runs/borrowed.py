"""An executor for hosts that lend an accelerator for the length of one call: the job runs in a generator.

The host runs the generator in a forked process and pickles what it is given and what it yields (ZeroGPU of Hugging Face
Spaces does). So it takes texts and yields lists of reports, which are strict JSON; requests to stop go through a file
in the comparison's folder. A call is short: when its time is nearly over the runs save and stop, and can be resumed.
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

from peft_core.records import Offer
from peft_core.runs.executors import Ending, Inbox, Worker
from peft_core.runs.job import DEFAULT_TRAINER, Job, Report, perform, reason
from peft_core.runs.machine import usable_cores

log = logging.getLogger(__name__)
Call = Callable[[str, str, str, float], Generator[list[Report], None, None]]
"""`reports_of`, or what a host's decorator makes of it."""
YIELD_SECONDS = 0.1
BEAT_SECONDS = 1.0
MARGIN = 8.0
"""Seconds of a call that are left for saving."""
ALL = "*"


def reports_of(job: str, trainer: str, stop_file: str, seconds: float) -> Generator[list[Report], None, None]:
    """Trains a job and yields its reports, and a beat at least every second.

    Args:
        job: as JSON. stop_file: gets a line for every run that is to stop, or `*`. seconds: the length of the call.
    """
    asked = Job.model_validate_json(job)
    until, over = time.monotonic() + max(seconds - MARGIN, seconds / 2), threading.Event()
    sent: queue.SimpleQueue[Report | None] = queue.SimpleQueue()

    def stopped(run: str) -> bool:
        if time.monotonic() > until and not over.is_set():
            over.set()
            said = f"the accelerator is lent for {seconds:g} seconds, which are over; resume goes on from here"
            sent.put({"notice": {"message": said}})
        return over.is_set() or bool({run, ALL} & _asked(stop_file))

    def train() -> None:
        perform(asked, trainer, sent.put, stopped)
        sent.put(None)

    thread = threading.Thread(target=train, name="training", daemon=True)
    thread.start()
    try:
        last, ended = time.monotonic(), False
        while not ended:
            batch, ended = _batch(sent)
            if batch or time.monotonic() - last >= BEAT_SECONDS:
                last = time.monotonic()
                yield batch or [{"beat": True}]
    finally:
        over.set()


def _batch(sent: queue.SimpleQueue[Report | None]) -> tuple[list[Report], bool]:
    """What has been sent within a moment, and whether it was the last."""
    batch: list[Report] = []
    try:
        report = sent.get(timeout=YIELD_SECONDS)
        while report is not None:
            batch.append(report)
            report = sent.get_nowait()
    except queue.Empty:
        return batch, False
    return batch, True


def _asked(stop_file: str) -> set[str]:
    try:
        return set(Path(stop_file).read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return set()


class BorrowedWorker:
    """A job in a call. It sees a kill at its next yield, a second later at most."""

    def __init__(self, job: Job, trainer: str, call: Call, seconds: float) -> None:
        self.inbox = Inbox()
        self._stop_file = job.folder / f"stop-{secrets.token_hex(4)}"
        self._error, self._left_behind = "", threading.Event()
        self._lock = threading.Lock()
        self._arguments = job.model_dump_json(), trainer, str(self._stop_file), seconds
        self._call = call
        self._thread = threading.Thread(target=self._follow, name=f"{job.comparison} borrowed", daemon=True)
        self._thread.start()

    def stop(self, run: str | None) -> None:
        with self._lock, self._stop_file.open("a", encoding="utf-8") as file:
            file.write(f"{run or ALL}\n")

    def kill(self) -> None:
        if self._thread.is_alive():
            self._left_behind.set()

    def ended(self) -> Ending | None:
        if self._left_behind.is_set():
            return Ending("stopped")
        if self._thread.is_alive():
            return None
        return Ending("failed", self._error) if self._error else Ending("done")

    def _follow(self) -> None:
        generator = None
        try:
            generator = self._call(*self._arguments)
            for reports in generator:
                if self._left_behind.is_set():
                    break
                for report in reports:
                    self._error = report.get("error", self._error)
                    self.inbox.put(json.loads(json.dumps(report, allow_nan=False)))
        except Exception as error:  # the host's own refusals: no accelerator is free, or the quota is used up
            log.exception("the call that lends the accelerator failed")
            self._error = reason(error)
        finally:
            if generator is not None:
                generator.close()
            with suppress(OSError):
                self._stop_file.unlink(missing_ok=True)


class BorrowedExecutor:
    """Trains in calls of `seconds` length, which may be changed. call: `reports_of`, decorated by the host."""

    def __init__(self, call: Call, seconds: float, trainer: str = DEFAULT_TRAINER) -> None:
        self.seconds = seconds
        self._call, self._trainer = call, trainer

    def warm(self, spares: int = 1) -> None:
        """Nothing waits: an accelerator is not held between calls."""

    def offer(self, several: bool) -> Offer:
        return Offer(workers=1, cores=usable_cores(), own_threads=False)

    def start(self, job: Job) -> Worker:
        return BorrowedWorker(job, self._trainer, self._call, self.seconds)

    def processes(self) -> list[int]:
        return []

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing waits."""
