"""One worker's share of a comparison: a worker is started for it and followed, and it is settled how its runs end.

A worker that dies takes at most the runs it worked on with it; the others of its share go on in a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from peft_core.records import Plan, RunState
from peft_core.runs.attempt import Attempt, Means, ended_as
from peft_core.runs.executors import Ending, Executor
from peft_core.runs.job import Job, Report

NO_RESULT = "training ended without a result for this run"


class Lane:
    """A job's worker from its start to its end. One thread calls `work`; any thread may call the other methods.

    planned: called with the plan that the worker chose, where the job has none.
    """

    def __init__(self, job: Job, means: Means, planned: Callable[[Plan], None]) -> None:
        self._job, self._means, self._planned = job, means, planned
        self._attempt: Attempt | None = None

    def stop(self, runs: Mapping[str, RunState]) -> None:
        """The store took requests to stop these runs, which are now in these states."""
        if self._attempt is not None:
            self._attempt.stop(runs)

    def keep(self, runs: Sequence[str]) -> None:
        """The other runs of the job belong to other workers."""
        if self._attempt is not None:
            self._attempt.keep(runs)

    def holds(self, run: str) -> bool:
        """Whether the worker may still be busy with the run."""
        attempt = self._attempt
        return attempt is not None and run in attempt.held

    def look(self) -> None:
        """Runs may have been asked to stop while nobody could be told: see to it."""
        wanted = (RunState.STOPPING, RunState.CANCELLED)
        found = self._means.store.runs(self._job.comparison)
        self.stop({run.run: run.state for run in found if run.state in wanted})

    def wind_up(self) -> None:
        """The worker saves what it can and stops."""
        if self._attempt is not None:
            self._attempt.wind_up()

    def work(self, executor: Executor) -> None:
        """Start a worker and stay until it has ended and the ends of its runs are stored."""
        worker = executor.start(self._job)
        attempt = Attempt(self._job, worker, self._means, self._planned)
        self._attempt = attempt
        try:
            self.look()
            if self._means.closing.is_set():
                attempt.wind_up()
            ending = attempt.follow()
            attempt.write(self._settled(attempt, ending))
        finally:
            worker.kill()
            self._attempt = None

    def _settled(self, attempt: Attempt, ending: Ending) -> list[Report]:
        """How the runs end that the worker left open; those that are not named go on in the next worker."""
        left = {run.run: run.state for run in self._means.store.runs(self._job.comparison) if run.run in attempt.runs}
        stopping = [run for run, state in left.items() if state is RunState.STOPPING]
        rest = [run for run, state in left.items() if state in (RunState.QUEUED, RunState.RUNNING)]
        at_work = [run for run in rest if run in attempt.active]
        state, reason = RunState.FAILED, ending.reason
        if self._means.closing.is_set():
            state, reason = RunState.INTERRUPTED, ""
        elif attempt.failure:
            reason = attempt.failure
        elif ending.how == "killed":
            state = RunState.INTERRUPTED
        elif ending.how == "stopped":
            rest = []
        elif ending.how == "done":
            reason = NO_RESULT
        elif at_work or (attempt.active and attempt.ended):
            rest = at_work
        return [ended_as(run, RunState.CANCELLED) for run in stopping] + [
            ended_as(run, state, reason or None) for run in rest
        ]
