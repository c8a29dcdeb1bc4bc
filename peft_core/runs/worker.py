"""The process that trains: `python -m peft_core.runs.worker`. It is started by the process executor.

Standard input: one JSON line with the job, then JSON lines `{"stop": run id or null}` (null: all runs). Its end means
that the parent is gone, and the worker ends itself. Reports go, one JSON line each, to what was standard output at the
start; after that standard output is standard error, so that a stray print does not get among them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import threading
import time
from typing import BinaryIO

from peft_core.runs.confinement import Confinement
from peft_core.runs.job import DEFAULT_TRAINER, Job, Report, perform, warm_up
from peft_core.runs.logs import about, configure_as_told

log = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
PARENT_GONE = 3
"""Exit status of a worker whose parent went away."""


class Reporter:
    """Writes reports to the parent, whole lines from any thread. Without a parent the process ends."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def send(self, report: Report) -> None:
        if event := report.get("event"):
            log.debug("reports %s at step %d", event["event"], event["step"], extra={"run": event["run"]})
        line = json.dumps(report, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                self._pipe.write(line)
                self._pipe.flush()
        except BrokenPipeError:
            leave(PARENT_GONE)


class Commands:
    """Reads the parent's lines in a thread: the job first, then requests to stop."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stopped: set[str | None] = set()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def stopped(self, run: str) -> bool:
        return run in self._stopped or None in self._stopped

    def _read(self) -> None:
        received = b""
        while part := os.read(self._pipe, 65536):
            *lines, received = (received + part).split(b"\n")
            for line in lines:
                command = json.loads(line)
                if "job" in command:
                    self.jobs.put(Job.model_validate(command["job"]))
                else:
                    self._stopped = self._stopped | {command["stop"]}
        log.info("the parent is gone")
        leave(PARENT_GONE)


def beat(reporter: Reporter) -> None:
    """Say every second that the process lives."""
    while True:
        time.sleep(BEAT_SECONDS)
        reporter.send({"beat": True})


def leave(status: int) -> None:
    """End the process now: no clean-up of libraries that may hang, nothing that a reader waits for is lost."""
    logging.shutdown()
    os._exit(status)


def take_pipes() -> tuple[BinaryIO, int]:
    """The two pipes to the parent, moved away from where prints and libraries could reach them."""
    reports, commands = os.fdopen(os.dup(1), "wb"), os.dup(0)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return reports, commands


def write_log_to(job: Job) -> None:
    """From now on everything that is printed or logged goes to the comparison's own log."""
    file = os.open(job.folder / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainer", default=DEFAULT_TRAINER)
    trainer = parser.parse_args().trainer
    reports, pipe = take_pipes()
    configure_as_told()
    Confinement.from_environment().apply()
    reporter = Reporter(reports)
    commands = Commands(pipe)
    threading.Thread(target=beat, args=(reporter,), name="heart", daemon=True).start()
    warm_up(trainer)
    job = commands.jobs.get()
    write_log_to(job)
    with about(job.comparison, job.runs[0] if len(job.runs) == 1 else ""):
        log.info("process %d trains %s", os.getpid(), ", ".join(job.runs))
        good = perform(job, trainer, reporter.send, commands.stopped)
    leave(0 if good else 1)


if __name__ == "__main__":
    main()
