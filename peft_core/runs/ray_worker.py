"""One job on a Ray cluster, as the supervisor sees it: on one actor after another where nodes are lost."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from peft_core.records import Plan, RunState
from peft_core.runs.executors import Ending, Inbox
from peft_core.runs.folders import STORAGE
from peft_core.runs.job import OUT_OF_MEMORY, Job, Report
from peft_core.runs.ray_host import MARK
from peft_core.runs.ray_options import RayOptions

log = logging.getLogger(__name__)
PAUSE_SECONDS, LONGEST_PAUSE = 1.0, 10.0
"""Before a job begins again; longer each time while none of its attempts gets as far as its worker."""
MOST_UNBEGUN, TELL_UNBEGUN = 20, 3
"""Attempts in a row that are lost before their worker is started until a job is given up, and until that is told."""


class Line(Protocol):
    """What a worker needs of its executor."""

    options: RayOptions

    def tell(self, line: Mapping[str, Any]) -> None:
        """A line for the bridge."""
        ...

    def again(self, worker: RayWorker) -> None:
        """Have what is left of its job begun, when it is due."""
        ...

    def forget(self, worker: RayWorker, number: int | None) -> None:
        """It has come to its end; number: of the attempt that is to be ended."""
        ...


class RayInbox(Inbox):
    """Tells the bridge how many reports were taken, so that it asks the cluster for more."""

    def __init__(self, worker: RayWorker) -> None:
        super().__init__()
        self._worker = worker

    def take(self, timeout: float) -> list[Report]:
        taken = super().take(timeout)
        if taken:
            self._worker.took(len(taken))
        return taken

    def sign(self, silent: float) -> None:
        """A sign of life that is so many seconds old."""
        self.last_sign = max(self.last_sign, time.monotonic() - silent)


class RayWorker:
    """A job on the cluster, on one actor after another where nodes are lost."""

    def __init__(self, job: Job, executor: Line) -> None:
        self._inbox = RayInbox(self)
        self.inbox: Inbox = self._inbox
        self.job, self._executor = job.model_copy(update={"numbered": True}), executor
        self.number: int | None = None
        self.due = time.monotonic()
        self._lock = threading.Lock()
        self._stops: list[str | None] = []
        self._known = dict(job.events)
        self._open = set(job.runs)
        self._plan: Plan | None = None
        self._waits, self._begun = False, False
        self._said: str | None = None
        self._losses, self._unbegun, self._error = 0, 0, ""
        self._ended: Ending | None = None

    # --- as the supervisor sees it ------------------------------------------------------------------------------

    def stop(self, run: str | None) -> None:
        with self._lock:
            self._stops.append(run)
            number = self.number
        if number is not None:
            self._executor.tell({"stop": number, "run": run})

    def kill(self) -> None:
        self._end(Ending("stopped"))

    def ended(self) -> Ending | None:
        return self._ended

    def took(self, count: int) -> None:
        with self._lock:
            number = self.number
        if number is not None:
            self._executor.tell({"took": number, "count": count})

    # --- as the executor sees it --------------------------------------------------------------------------------

    def begin(self, number: int) -> Mapping[str, Any]:
        """The line that has the bridge begin what is left."""
        with self._lock:
            self.number = number
            job = self._left()
        (job.folder / MARK).touch()
        if self._executor.options.storage is not None:
            (job.folder / STORAGE).write_text(self._executor.options.storage, encoding="utf-8")
        return {"begin": number, "job": json.loads(job.model_dump_json())}

    def hear(self, line: Mapping[str, Any]) -> None:
        """What the bridge says of the attempt at work."""
        if self._ended is not None:
            return
        if line.get("begun"):
            self._begun = True
            self._tell_no_more_waiting()
            for run in list(self._stops):
                self.stop(run)
        if line.get("waits"):
            self._tell_waiting(line["waits"])
        if "silent" in line:
            self._inbox.sign(line["silent"])
        for report in line.get("reports", ()):
            self._take(report)
        if "lost" in line:
            self.lost(line["lost"])
        if "ending" in line:
            self._write_log(line["ending"]["log"])
            ending = Ending(line["ending"]["how"], line["ending"]["reason"])
            self._end(Ending("failed", self._error) if self._error and ending.how == "failed" else ending)

    def lost(self, why: str) -> None:
        """The attempt is gone without its doing: it begins again, unless that has happened too often.

        One that had not begun to train costs nothing and does not count, unless it is one of many in a row.
        """
        with self._lock:
            self.number, begun, self._begun = None, self._begun, False
            self._losses += 1 if begun else 0
            self._unbegun = 0 if begun else self._unbegun + 1
            left = self._executor.options.restarts - self._losses if self._unbegun <= MOST_UNBEGUN else -1
        if not self._open or (None in self._stops):
            self._end(Ending("done" if not self._open else "stopped"))
        elif left < 0:
            if self._said is not None:
                self._put({"notice": {"message": None}})
            memory = "memory" in why
            lost = max(self._losses, self._unbegun)
            times = f"{why}, {lost} times" if lost > 1 else why
            self._end(Ending("out_of_memory", OUT_OF_MEMORY) if memory else Ending("killed", times))
        else:
            log.warning("%s: %s; worker %d begins again", self.job.comparison, why, self.job.share)
            self.due = time.monotonic() + min(PAUSE_SECONDS * 2 ** max(0, self._unbegun - 1), LONGEST_PAUSE)
            self._executor.again(self)
        if begun and left >= 0 and self._ended is None:
            said = f"{why[:1].upper()}{why[1:]}; worker {self.job.share + 1} goes on from its last checkpoints"
            self._said = f"{said} ({self._losses} of {self._executor.options.restarts} times)."
            self._put({"notice": {"message": self._said}})
        elif self._unbegun == TELL_UNBEGUN and not self._waits and self._ended is None:
            self._waits = True
            said = f"{why[:1].upper()}{why[1:]}; worker {self.job.share + 1} is tried again."
            self._put({"notice": {"message": said}})

    def _left(self) -> Job:
        """The job without the runs that have ended, from what is known by now."""
        plan = self.job.plan or self._plan
        runs = [run for run in self.job.runs if run in self._open]
        if self.job.plan is None and self._plan is not None:
            runs = [run for run in runs if self._plan.share_of(run) == self.job.share]
        again = self.job.resume or self._losses > 0
        changed = {"runs": tuple(runs), "plan": plan, "resume": again, "events": dict(self._known)}
        return self.job.model_copy(update=changed)

    def _take(self, report: Report) -> None:
        """Pass a report on, unless its number says that it was here before."""
        event, number = report.get("event"), report.get("n")
        if event is not None and number is not None:
            if number <= self._known.get(event["run"], 0):
                self.took(1)
                return
            self._known[event["run"]] = number
        if event is not None and event["event"] == "state" and RunState(event["state"]).ended:
            self._open.discard(event["run"])
        found = Plan.recorded(report.get("notice", {}).get("plan") or {})
        if found is not None and self._plan is None and self.job.offer is not None:
            self._plan = found
            self._open = {run for run in self._open if found.share_of(run) == self.job.share}
        if "error" in report:
            self._error = report["error"]
        self._put({name: value for name, value in report.items() if name != "n"})

    def _put(self, report: Report) -> None:
        if self._ended is None:
            self.inbox.put(report)

    def sign(self) -> None:
        """It waits, and that is no reason to end it."""
        self._inbox.sign(0.0)

    def _tell_waiting(self, what: str) -> None:
        if not self._waits:
            self._waits = True
            self._put({"notice": {"message": f"Worker {self.job.share + 1} waits for room on the cluster ({what})."}})

    def _tell_no_more_waiting(self) -> None:
        if self._waits:
            self._waits = False
            self._put({"notice": {"message": self._said}})

    def _write_log(self, text: str) -> None:
        """The worker's log is kept beside the comparison, as always, where the node has written it elsewhere."""
        if text and self._executor.options.storage is not None:
            with suppress(OSError), (self.job.folder / "worker.log").open("a", encoding="utf-8") as file:
                file.write(text)

    def _end(self, ending: Ending) -> None:
        with self._lock:
            if self._ended is not None:
                return
            self._ended = ending
            number, self.number = self.number, None
        self._executor.forget(self, number)
