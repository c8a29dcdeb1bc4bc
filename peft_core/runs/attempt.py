"""One worker's life, seen from outside: what it reports is stored, and it is watched until it has ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft_core.records import Plan, RunState, StateRecord
from peft_core.runs.board import Board
from peft_core.runs.errors import DiskFull, StoreBusy
from peft_core.runs.executors import Ending, Worker
from peft_core.runs.job import DISK_FULL, Job, Report, as_json
from peft_core.runs.limits import Limits
from peft_core.runs.pace import Pace
from peft_core.runs.reserve import Reserve
from peft_core.runs.store import Store

log = logging.getLogger(__name__)
COMMIT_SECONDS = 0.1
"""Reports are written together, about this often."""
LOADING_PATIENCE = 1.0
"""How long a worker may take to stop that has not begun to train: it has nothing to save."""


def ended_as(run: str, state: RunState, error: str | None = None) -> Report:
    """The report of a run's end that the supervisor makes itself."""
    return {"event": as_json(StateRecord(run=run, step=0, state=state, error=error))}


@dataclass(frozen=True)
class Means:
    """What the workers of one comparison have in common. until: the monotonic time at which training has to stop."""

    store: Store
    board: Board
    reserve: Reserve
    limits: Limits
    until: float | None = None
    pace: Pace = field(default_factory=Pace)
    closing: threading.Event = field(default_factory=threading.Event)


class Attempt:
    """A job with its worker. `follow` returns when the worker has ended and all of its reports are stored.

    planned: called with the plan that the worker chose, once it is stored. runs: those that are the worker's to train.
    held: those of them that it may still be busy with. active: those that it works on: one, or a group that advances
    together. ended: how many of its runs it has ended. failure: the reason for which unfinished runs fail, where a
    limit stopped them.
    """

    def __init__(self, job: Job, worker: Worker, means: Means, planned: Callable[[Plan], None]) -> None:
        self.runs, self.held, self.ended = job.runs, set(job.runs), 0
        self.active: tuple[str, ...] = ()
        self.failure: str | None = None
        self._until, self._pace, self._planned = means.until, means.pace, planned
        self._job, self._worker, self._store, self._board = job, worker, means.store, means.board
        self._reserve, self._limits = means.reserve, means.limits
        self._lock = threading.Lock()
        self._stopping: dict[str, tuple[float, bool]] = {}
        self._wound_up: float | None = None
        self._without_room: set[str] = set()
        self._pending: list[Report] = []
        self._ending: Ending | None = None
        self._committed = self._arrived = 0.0
        self._blocked_since: float | None = None

    # --- asked for, from any thread -----------------------------------------------------------------------------

    def stop(self, runs: Mapping[str, RunState]) -> None:
        """Tell the worker to stop these runs; their states say whether they were at work already."""
        with self._lock:
            new = [run for run in runs if run in self.held and run not in self._stopping]
            for run in new:
                self._stopping[run] = (time.monotonic(), runs[run] is RunState.STOPPING)
        for run in new:
            self._worker.stop(run)

    def keep(self, runs: Sequence[str]) -> None:
        """The worker trains these of its runs only; others have the rest."""
        with self._lock:
            self.runs = tuple(run for run in self.runs if run in runs)
            self.held = self.held & set(runs)

    def wind_up(self) -> None:
        """Tell the worker to stop altogether, and end it where it takes too long."""
        with self._lock:
            self._wound_up = self._wound_up or time.monotonic()
        self._worker.stop(None)

    # --- the life -----------------------------------------------------------------------------------------------

    def follow(self) -> Ending:
        while True:
            ending = self._worker.ended()
            for report in self._worker.inbox.take(0.0 if ending else COMMIT_SECONDS / 2):
                self._take(report)
            if ending is None:
                self._watch()
            if ending or time.monotonic() - self._committed >= COMMIT_SECONDS:
                self._commit()
            if ending and not self._pending:
                return self._ending or ending

    def write(self, reports: list[Report]) -> None:
        """Store what the supervisor itself has to say, however long the store is locked."""
        self._arrived = self._arrived if self._pending else time.monotonic()
        self._pending += reports
        self._commit()
        while self._pending:
            time.sleep(COMMIT_SECONDS)
            self._commit()

    def _take(self, report: Report) -> None:
        if not self._pending:
            self._arrived = time.monotonic()
        notice, event = report.get("notice"), report.get("event")
        if notice is not None:
            self._turn_to(notice.get("active"))
            self._pending.append(report)
        elif event is not None:
            if event["event"] == "state":
                if RunState(event["state"]).ended:
                    event = self._let_go(event)
                log.info("the run is %s", event["state"], extra={"run": event["run"]})
            elif event["event"] == "step":
                self.active = self.active if event["run"] in self.active else (event["run"],)
                self._pace.step()
            self._pending.append({"event": event})

    def _turn_to(self, active: str | list[str] | None) -> None:
        if active:
            self.active = (active,) if isinstance(active, str) else tuple(active)

    def _let_go(self, event: dict[str, Any]) -> dict[str, Any]:
        """A run has ended. One that a limit stopped has failed for that reason: nobody cancelled it."""
        with self._lock:
            self.held = self.held - {event["run"]}
        self.ended += 1
        if self.failure and event["state"] == RunState.CANCELLED:
            return {**event, "state": RunState.FAILED.value, "error": self.failure}
        return event

    # --- watching -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        now, inbox, limits = time.monotonic(), self._worker.inbox, self._limits
        if now - inbox.last_sign > limits.beat:
            self._end(Ending("failed", f"the worker gave no sign of life for {limits.beat:g} seconds"))
        elif now - inbox.last_work > limits.stall:
            self._end(Ending("failed", f"the worker did nothing for {limits.stall:g} seconds"))
        elif self._overdue(now):
            self._end(Ending("stopped"))
        elif self._until is not None and now > self._until and self.failure is None:
            self.failure = f"the time limit of {limits.total:g} seconds was reached; resume goes on from here"
            self.wind_up()

    def _overdue(self, now: float) -> bool:
        """Whether a run was asked to stop too long ago. One that had not begun is no reason to disturb the others."""
        patience = self._limits.stop if self.active else LOADING_PATIENCE
        with self._lock:
            if self._wound_up is not None and now - self._wound_up > patience:
                return True
            asked = {run: value for run, value in self._stopping.items() if run in self.held}
            late = [run for run, (since, _) in asked.items() if now - since > patience]
            return bool(late) and (len(asked) == len(self.held) or any(asked[run][1] for run in late))

    def _end(self, ending: Ending) -> None:
        if self._ending is None:
            log.warning(
                "ending the worker of %s: %s", self._job.comparison, ending.reason or "it did not stop when asked"
            )
            self._ending = ending
            self._worker.kill()

    # --- writing ------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Write what has come in. A locked store is tried again; a full disk costs the run at work."""
        self._committed = time.monotonic()
        if not self._pending:
            return
        batch = list(self._pending)
        try:
            changed = self._store.apply(self._job.comparison, batch, patience=0.5)
        except StoreBusy:
            self._blocked_since = self._blocked_since or self._committed
            if self._committed - self._blocked_since > self._limits.store:
                raise
        except DiskFull:
            self._make_room()
        else:
            self._blocked_since = None
            del self._pending[: len(batch)]
            if self._board.on_stored is not None:
                self._board.on_stored(time.monotonic() - self._arrived, len(batch))
            self._tell_plan(batch)
            self._board.refresh(self._job.comparison, changed)
            left = self._pace.seconds_left(*self._board.rows(self._job.comparison))
            self._board.note(self._job.comparison, eta_seconds=left)

    def _tell_plan(self, stored: Sequence[Report]) -> None:
        for report in stored:
            plan = Plan.recorded(report.get("notice", {}).get("plan") or {})
            if plan is not None:
                self._planned(plan)

    def _make_room(self) -> None:
        """Spend the reserve and end the run at work; where there is no reserve left, end all and drop their figures."""
        held = sorted(self.held - self._without_room)
        if self._reserve.spend():
            victims = [run for run in self.active if run in held] or held[:1]
            self._pending += [ended_as(run, RunState.FAILED, DISK_FULL) for run in victims]
        else:
            victims = held
            self._pending[:0] = [ended_as(run, RunState.FAILED, DISK_FULL) for run in victims]
        self._without_room.update(victims)
        self.stop(dict.fromkeys(victims, RunState.STOPPING))
        if self._wound_up is not None and time.monotonic() - self._wound_up > self._limits.stop:
            raise DiskFull("The disk is full; what was measured last could not be stored.")
