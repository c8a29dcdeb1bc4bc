"""One comparison at work: the first worker chooses the plan, and every share of it has a worker until nothing is left.

The plan is chosen once and recorded. A comparison that is resumed has the same shares, groups and threads again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from peft_core.records import FEW_STEPS, Plan, RunRow, RunState
from peft_core.runs.attempt import Means
from peft_core.runs.board import Board
from peft_core.runs.executors import Executor
from peft_core.runs.job import Job
from peft_core.runs.lane import Lane
from peft_core.runs.limits import Limits
from peft_core.runs.reserve import Reserve
from peft_core.runs.rows import planned_steps
from peft_core.runs.store import Store

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
"""How often runs are looked for that were queued again while others train."""


class Conductor:
    """Works on the comparison of `job`, whose runs are chosen anew for each worker.

    One thread calls `work` until it returns False; any thread may call the other methods.
    """

    def __init__(
        self, job: Job, store: Store, board: Board, executor: Executor, reserve: Reserve, limits: Limits
    ) -> None:
        self.started = time.monotonic()
        self._job, self._store, self._board, self._executor = job, store, board, executor
        until = None if limits.total is None else self.started + limits.total
        self._means = Means(store, board, reserve, limits, until)
        self._plan: Plan | None = None
        self._lock = threading.Lock()
        self._lanes: dict[int, Lane] = {}
        self._errors: dict[int, Exception] = {}
        self._news = threading.Event()

    # --- asked for, from any thread -----------------------------------------------------------------------------

    def stop(self, runs: Mapping[str, RunState]) -> None:
        """The store took requests to stop these runs, which are now in these states."""
        for lane in self._at_work():
            lane.stop(runs)

    def look(self) -> None:
        """Another process may have asked the store to stop runs: see to it."""
        for lane in self._at_work():
            lane.look()

    def holds(self, run: str) -> bool:
        """Whether a worker may still be busy with the run."""
        return any(lane.holds(run) for lane in self._at_work())

    def close(self) -> None:
        """Come to an end: the workers save what they can, unfinished runs are interrupted."""
        self._means.closing.set()
        for lane in self._at_work():
            lane.wind_up()
        self._news.set()

    # --- the work -----------------------------------------------------------------------------------------------

    def work(self) -> bool:
        """Train what is queued or was left by workers that died, until nothing is. False where nothing was.

        Raises:
            Exception: what kept a worker from being started or its reports from being stored; other workers have
                ended by then.
        """
        self._plan = Plan.recorded(self._store.view(self._job.comparison, only=()).comparison.plan)
        if not self._start_lanes():
            return False
        while self._lanes or self._start_lanes():
            self._news.wait(LOOK_SECONDS)
            self._news.clear()
            self._start_lanes()
        self._board.note(self._job.comparison, eta_seconds=None)
        if self._errors:
            raise next(iter(self._errors.values()))
        return True

    def _start_lanes(self) -> bool:
        """Give every share that has something to do a worker; whether there was one to start."""
        if self._means.closing.is_set():
            return False
        taken = {*self._lanes, *self._errors}  # before the runs are read, which may end in between
        open_runs = [run for run in self._store.runs(self._job.comparison) if not run.state.ended]
        if self._plan is None:
            shares = {0: open_runs}
        else:
            numbers = [self._plan.share_of(run.run) for run in open_runs]
            shares = {
                share: [run for run, number in zip(open_runs, numbers, strict=True) if number == share]
                for share in sorted(set(numbers))
            }
        idle = {share: runs for share, runs in shares.items() if runs and share not in taken}
        for share, runs in idle.items():
            self._start(self._job_of(share, runs))
        return bool(idle)

    def _job_of(self, share: int, runs: list[RunRow]) -> Job:
        again = any(run.step > 0 or run.state is not RunState.QUEUED for run in runs)
        job = self._job.model_copy(update={"runs": tuple(run.run for run in runs), "resume": again, "share": share})
        several = self._plan is None and self._several(runs)
        counts = self._store.event_counts(job.comparison) if again else {}
        return job.model_copy(update={"plan": self._plan, "offer": self._executor.offer(several), "events": counts})

    def _several(self, runs: list[RunRow]) -> bool:
        """Whether more than one worker may be of use."""
        spec = self._job.spec
        steps = planned_steps(spec, None)
        short = steps is not None and steps * len(runs) < FEW_STEPS
        return len(runs) > 1 and (spec.plan == "workers" or (spec.plan == "auto" and not short))

    def _start(self, job: Job) -> None:
        lane = Lane(job, self._means, self._take_plan)
        name = f"{job.comparison} worker {job.share}"
        thread = threading.Thread(target=self._follow, args=(lane, job.share), name=name, daemon=True)
        with self._lock:
            self._lanes = self._lanes | {job.share: lane}
        thread.start()

    def _follow(self, lane: Lane, share: int) -> None:
        try:
            lane.work(self._executor)
        except Exception as error:  # `work` raises it when the other workers have ended
            log.exception("worker %d of %s cannot go on", share, self._job.comparison)
            self._errors[share] = error
        finally:
            with self._lock:
                self._lanes = {number: found for number, found in self._lanes.items() if number != share}
            self._news.set()

    def _take_plan(self, plan: Plan) -> None:
        """The first worker has chosen: it keeps its own share, the others are given away."""
        if self._plan is None:
            own = [run.run for run in self._store.runs(self._job.comparison) if plan.share_of(run.run) == 0]
            for lane in self._at_work():
                lane.keep(own)
            self._plan = plan
            self._news.set()

    def _at_work(self) -> list[Lane]:
        with self._lock:
            return list(self._lanes.values())
