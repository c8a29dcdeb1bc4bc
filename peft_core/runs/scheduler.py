"""Which comparison trains when: a bounded queue, a thread for each at work, and a look at what other processes did."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from peft_core.records import InputError, RunState
from peft_core.runs import folders
from peft_core.runs.attempt import ended_as
from peft_core.runs.board import Board
from peft_core.runs.conductor import Conductor
from peft_core.runs.errors import QueueFull, Refused
from peft_core.runs.executors import Executor
from peft_core.runs.job import Job, reason
from peft_core.runs.limits import Limits
from peft_core.runs.logs import about
from peft_core.runs.owners import Ownership
from peft_core.runs.reserve import Reserve
from peft_core.runs.store import Store

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
"""How often other processes' changes of the store are noticed."""
RECOVER_SECONDS = 2.0
"""How often comparisons are looked for whose owner is gone."""
RELEASE_SECONDS = 2.0
"""How long a request to resume waits for a worker that is letting go of its runs."""
SPARES = 2
"""Workers that are made ready while nothing trains: a comparison may start with two."""
CLOSE_SECONDS = 1.5
"""Time that is left for the threads to end after their workers have had `Limits.stop` seconds."""


class Scheduler:
    """Starts comparisons in their order, `concurrency` at a time. `lock` guards the queue and what is at work."""

    def __init__(
        self,
        home: Path,
        store: Store,
        board: Board,
        executor: Executor,
        ownership: Ownership,
        limits: Limits,
        *,
        concurrency: int,
        max_queue: int,
    ) -> None:
        self.lock = threading.RLock()
        self._home, self._store, self._board, self._executor = home, store, board, executor
        self._ownership, self._limits = ownership, limits
        self._concurrency, self._max_queue = concurrency, max_queue
        self._reserve = Reserve(home / "reserve", limits.free)
        self._queue: deque[str] = deque()
        self._at_work: dict[str, tuple[Conductor, threading.Thread]] = {}
        self._to_fail: dict[str, str] = {}
        self._kick, self._closing = threading.Event(), False
        self._recovered = 0.0
        self._look_around()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    # --- the queue ----------------------------------------------------------------------------------------------

    def make_sure_of_place(self) -> None:
        """Raises `QueueFull` where no more comparison can be taken, `Refused` where the end has come."""
        if self._closing:
            raise Refused("RankLab is shutting down; nothing new is started.")
        free = max(0, self._concurrency - len(self._at_work))
        if len(self._queue) >= self._max_queue + free:
            waiting = len(self._queue) - free
            said = f"{waiting} comparisons are" if waiting != 1 else "one comparison is"
            raise QueueFull(f"The queue is full: {said} waiting; try again when one has ended.")

    def enqueue(self, comparison_id: str) -> None:
        """Have a comparison with queued runs trained; at once where it is at work, else after those that wait."""
        with self.lock:
            if comparison_id not in self._at_work and comparison_id not in self._queue:
                self._queue.append(comparison_id)
            self._number()
        self._board.refresh(comparison_id)
        self._kick.set()

    def busy(self, comparison_id: str) -> bool:
        """Whether a comparison is at work here."""
        return comparison_id in self._at_work

    @property
    def alive(self) -> bool:
        """Whether what waits will be started."""
        return not self._closing and self._thread.is_alive()

    def load(self) -> tuple[int, int]:
        """How many comparisons wait, and how many are at work."""
        with self.lock:
            return len(self._queue), len(self._at_work)

    def holds(self, comparison_id: str, run: str) -> bool:
        """Whether a worker here may still be busy with a run."""
        with self.lock:
            at_work = self._at_work.get(comparison_id)
        return at_work is not None and at_work[0].holds(run)

    def wait_for_release(self, comparison_id: str, runs: Sequence[str]) -> None:
        """Wait a moment while a worker still holds one of these runs that has ended: its end is stored before it is
        let go. What broke before is settled first, so that it cannot end what is queued now."""
        self._fail_what_broke()
        deadline = time.monotonic() + RELEASE_SECONDS
        while time.monotonic() < deadline:
            ended = {run.run for run in self._store.runs(comparison_id) if run.state.ended}
            if not any(run in ended and self.holds(comparison_id, run) for run in runs):
                return
            time.sleep(RELEASE_SECONDS / 100)

    def stop(self, comparison_id: str, runs: Mapping[str, RunState]) -> None:
        """The store took requests to stop these runs."""
        with self.lock:
            at_work = self._at_work.get(comparison_id)
            self._tidy()
        if at_work is not None:
            at_work[0].stop(runs)
        self._kick.set()

    def close(self) -> None:
        """Start nothing more, have all workers stop, and come back when they are gone, within 10 seconds."""
        with self.lock:
            self._closing = True
            at_work = list(self._at_work.values())
            self._queue.clear()
        self._kick.set()
        deadline = time.monotonic() + self._limits.stop + CLOSE_SECONDS
        for conductor, _ in at_work:
            conductor.close()
        for thread in (self._thread, *(thread for _, thread in at_work)):
            thread.join(max(0.1, deadline - time.monotonic()))

    def _tidy(self) -> None:
        """Let nothing wait that has been stopped or deleted."""
        for comparison_id in list(self._queue):
            if all(run.state.ended for run in self._store.runs(comparison_id)):
                self._queue.remove(comparison_id)
                self._board.note(comparison_id, queue_place=None)
        self._number()

    def _number(self) -> None:
        for place, comparison_id in enumerate(self._queue, start=1):
            self._board.note(comparison_id, queue_place=place)

    # --- the scheduler's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._kick.wait(LOOK_SECONDS)
            self._kick.clear()
            try:
                self._start_next()
                self._look_around()
            except (sqlite3.OperationalError, Refused, InputError, OSError) as error:
                log.warning("the scheduler tries again: %s", error)

    def _start_next(self) -> None:
        with self.lock:
            while self._queue and len(self._at_work) < self._concurrency and not self._closing:
                comparison_id = self._queue[0]
                job = self._job(comparison_id)
                claimed = self._store.claim(comparison_id, self._ownership.name)
                self._queue.popleft()
                self._board.note(comparison_id, queue_place=None)
                self._number()
                if claimed:
                    self._start(job)
                self._board.refresh(comparison_id)
            youngest = max((conductor.started for conductor, _ in self._at_work.values()), default=None)
        if not self._closing and (youngest is None or time.monotonic() - youngest > self._limits.spare):
            self._executor.warm(1 if youngest is not None else SPARES)

    def _start(self, job: Job) -> None:
        conductor = Conductor(job, self._store, self._board, self._executor, self._reserve, self._limits)
        thread = threading.Thread(target=self._conduct, args=(job,), name=job.comparison, daemon=True)
        self._at_work[job.comparison] = conductor, thread
        thread.start()

    def _job(self, comparison_id: str) -> Job:
        folder = folders.comparison_folder(self._home, comparison_id)
        spec = self._store.view(comparison_id, only=()).comparison.spec
        return Job(comparison=comparison_id, spec=spec, runs=(), folder=folder, resume=False)

    def _look_around(self) -> None:
        """Keep room in reserve, take in what other processes did, and recover what a dead one left unfinished."""
        self._reserve.keep()
        self._fail_what_broke()
        if self._store.changed_elsewhere():
            self._board.forget()
            with self.lock:
                self._tidy()
                conductors = [conductor for conductor, _ in self._at_work.values()]
            for conductor in conductors:
                conductor.look()
        if time.monotonic() - self._recovered > RECOVER_SECONDS:
            self._recovered = time.monotonic()
            gone = [owner for owner in self._store.unfinished_owners() if self._ownership.ended(owner)]
            for comparison_id in self._store.interrupt(gone) if gone else ():
                log.info("%s was left unfinished and is interrupted now", comparison_id)
                self._board.refresh(comparison_id)

    # --- a comparison's thread ----------------------------------------------------------------------------------

    def _conduct(self, job: Job) -> None:
        comparison_id = job.comparison
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            conductor = self._at_work[comparison_id][0]
            with about(comparison_id):
                while not self._leave(comparison_id) and not self._closing:
                    conductor.work()
        except Exception as error:  # the outermost guard: it becomes the reason of the failure
            log.exception("the comparison %s cannot go on", comparison_id)
            with self.lock:
                self._to_fail[comparison_id] = reason(error)
        finally:
            with self.lock:
                self._at_work.pop(comparison_id, None)
            self._board.refresh(comparison_id)
            self._kick.set()

    def _leave(self, comparison_id: str) -> bool:
        """Take a comparison off the work where nothing is left to do; no run can be queued again in between."""
        with self.lock:
            if any(not run.state.ended for run in self._store.runs(comparison_id)):
                return False
            self._store.release(comparison_id)
            self._at_work.pop(comparison_id, None)
            return True

    def _fail_what_broke(self) -> None:
        with self.lock:
            broken = dict(self._to_fail)
        for comparison_id, error in broken.items():
            left = [run.run for run in self._store.runs(comparison_id) if not run.state.ended]
            self._store.apply(comparison_id, [ended_as(run, RunState.FAILED, error) for run in left])
            self._store.release(comparison_id)
            with self.lock:
                self._to_fail.pop(comparison_id, None)
            self._board.refresh(comparison_id)
