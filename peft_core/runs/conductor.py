"""One comparison at work: it starts a worker, follows it, and settles how each run ends.

A worker that dies takes at most the run it worked on with it; the others go on in a new one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from peft_core.records import RunState
from peft_core.runs.attempt import Attempt, ended_as
from peft_core.runs.board import Board
from peft_core.runs.executors import Ending, Executor
from peft_core.runs.job import Job, Report
from peft_core.runs.limits import Limits
from peft_core.runs.reserve import Reserve
from peft_core.runs.store import Store

NO_RESULT = "training ended without a result for this run"


class Conductor:
    """Works on the comparison of `job`, whose runs are chosen anew for each worker.

    One thread calls `work` until it returns False; any thread may call the other methods.
    """

    def __init__(
        self, job: Job, store: Store, board: Board, executor: Executor, reserve: Reserve, limits: Limits
    ) -> None:
        self.started = time.monotonic()
        self._job, self._store, self._board, self._executor = job, store, board, executor
        self._reserve, self._limits = reserve, limits
        self._until = None if limits.total is None else self.started + limits.total
        self._attempt: Attempt | None = None
        self._closing = False

    def stop(self, runs: Mapping[str, RunState]) -> None:
        """The store took requests to stop these runs, which are now in these states."""
        if self._attempt is not None:
            self._attempt.stop(runs)

    def look(self) -> None:
        """Another process may have asked the store to stop runs: see to it."""
        wanted = (RunState.STOPPING, RunState.CANCELLED)
        self.stop({run.run: run.state for run in self._store.runs(self._job.comparison) if run.state in wanted})

    def holds(self, run: str) -> bool:
        """Whether a worker may still be busy with the run."""
        attempt = self._attempt
        return attempt is not None and run in attempt.held

    def close(self) -> None:
        """Come to an end: the worker saves what it can, unfinished runs are interrupted."""
        self._closing = True
        if self._attempt is not None:
            self._attempt.wind_up()

    def work(self) -> bool:
        """Train with one worker what is queued or was left by a worker that died. False where nothing is left."""
        open_runs = [run for run in self._store.runs(self._job.comparison) if not run.state.ended]
        if not open_runs or self._closing:
            return False
        again = any(run.step > 0 or run.state is not RunState.QUEUED for run in open_runs)
        job = self._job.model_copy(update={"runs": tuple(run.run for run in open_runs), "resume": again})
        worker = self._executor.start(job)
        attempt = Attempt(job, worker, self._store, self._board, self._reserve, self._limits, self._until)
        self._attempt = attempt
        try:
            self.look()
            if self._closing:
                attempt.wind_up()
            ending = attempt.follow()
            attempt.write(self._settled(job, attempt, ending))
        finally:
            worker.kill()
            self._attempt = None
            self._board.note(job.comparison, eta_seconds=None)
        return True

    def _settled(self, job: Job, attempt: Attempt, ending: Ending) -> list[Report]:
        """How the runs end that the worker left open; those that are not named go on in the next worker."""
        left = {run.run: run.state for run in self._store.runs(job.comparison) if run.run in job.runs}
        stopping = [run for run, state in left.items() if state is RunState.STOPPING]
        rest = [run for run, state in left.items() if state in (RunState.QUEUED, RunState.RUNNING)]
        state, reason = RunState.FAILED, ending.reason
        if self._closing:
            state, reason = RunState.INTERRUPTED, ""
        elif attempt.failure:
            reason = attempt.failure
        elif ending.how == "killed":
            state = RunState.INTERRUPTED
        elif ending.how == "stopped":
            rest = []
        elif ending.how == "done":
            reason = NO_RESULT
        elif attempt.active in rest:
            rest = [attempt.active]
        elif attempt.active and attempt.ended:
            rest = []
        return [ended_as(run, RunState.CANCELLED) for run in stopping] + [
            ended_as(run, state, reason or None) for run in rest
        ]
