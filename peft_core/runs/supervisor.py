"""The supervisor: takes comparisons, has them trained in the background, and shows how they go.

    with Supervisor(home()) as supervisor:
        comparison = supervisor.submit(spec)
        supervisor.wait(comparison)
        view = supervisor.view(comparison)

All methods may be called from any thread. Several supervisors, in one process or in many, may work on one folder; at
most one of them is a server.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from peft_core.records import ComparisonRow, ComparisonSpec, InputError, RunState, View, public_mode
from peft_core.runs import folders
from peft_core.runs import job as jobs
from peft_core.runs.begun import keep_starts, with_starts
from peft_core.runs.bin import Bin
from peft_core.runs.board import Board
from peft_core.runs.errors import DiskFull, Refused
from peft_core.runs.executors import Executor, ThreadExecutor
from peft_core.runs.health import Figures, Health, condition, has_room
from peft_core.runs.learned import with_learned_ranks
from peft_core.runs.limits import Limits
from peft_core.runs.listing import RunPage, RunQuery
from peft_core.runs.machine import usable_cores
from peft_core.runs.owners import Ownership
from peft_core.runs.process import ProcessExecutor
from peft_core.runs.rows import RESUMABLE
from peft_core.runs.scheduler import Scheduler
from peft_core.runs.store import Store
from peft_core.runs.visits import Visit

log = logging.getLogger(__name__)


class Supervisor:
    """Runs comparisons from a store under `home`.

    Args:
        executor: `process`, `thread`, `ray`, or one made elsewhere.
        concurrency: comparisons that train at once; the others wait.
        max_queue: comparisons that may wait.
        server: take the lock that only one server on a folder can hold.
        trainer: what trains, `package.module:function` (see `peft_core.runs.job`).

    Raises:
        FolderInUse: another server works on the folder. StoreUnusable: the store is of a newer version.
        FolderUnusable: the folder cannot be written.
    """

    def __init__(
        self,
        home: Path,
        *,
        executor: str | Executor = "process",
        concurrency: int = 1,
        max_queue: int = 20,
        server: bool = False,
        trainer: str = jobs.DEFAULT_TRAINER,
        limits: Limits | None = None,
    ) -> None:
        self.home, self.limits = folders.usable(home), limits or Limits()
        self._trainer, self._closed = trainer, False
        self._ownership = Ownership(self.home, server=server)
        try:
            self._store = Store(self.home / "store.sqlite")
        except BaseException:
            self._ownership.close()
            raise
        self._board = Board(self._store)
        try:
            self._executor = self._choose(executor, concurrency)
        except BaseException:
            self._store.close()
            self._ownership.close()
            raise
        self._scheduler = Scheduler(
            self.home,
            self._store,
            self._board,
            self._executor,
            self._ownership,
            self.limits,
            concurrency=concurrency,
            max_queue=max_queue,
        )
        self._bin = Bin(self._store, self._remove_files, self.limits.undo, empties=server)

    def _choose(self, executor: str | Executor, concurrency: int) -> Executor:
        if executor == "process":
            return ProcessExecutor(self.home, self._trainer, workers=max(1, usable_cores() // max(1, concurrency)))
        if executor == "thread":
            return ThreadExecutor(self._trainer)
        if executor == "ray":
            from peft_core.runs.ray import RayExecutor

            return RayExecutor(self.home, self._trainer)
        if isinstance(executor, str):
            raise InputError("executor", executor, "it must be one of process, thread, ray")
        return executor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what can be asked for ----------------------------------------------------------------------------------

    def submit(self, spec: ComparisonSpec, visit: Visit | None = None, admit: Callable[[], None] | None = None) -> str:
        """Store a comparison and train it as soon as its turn comes; return its id.

        Args:
            visit: who asked for it. admit: raises where one more may not be stored now; no other is meanwhile.

        Raises:
            InputError: it cannot run. QueueFull: too many wait. DiskFull: there is too little room. Nothing is stored.
        """
        spec = with_starts(with_learned_ranks(spec, self._store.view), self._store.view)
        jobs.check(spec, self._trainer)
        self._make_sure_of_room()
        with self._scheduler.lock:
            if admit:
                admit()
            self._scheduler.make_sure_of_place()
            comparison_id = self._store.add(spec, self._ownership.name, visit)
            try:
                keep_starts(self.home, comparison_id, spec, self._store.view)
            except BaseException:
                self._store.request_stop([run.run for run in self._store.runs(comparison_id)])
                self._store.delete(comparison_id)
                shutil.rmtree(folders.comparison_folder(self.home, comparison_id), ignore_errors=True)
                raise
            self._scheduler.enqueue(comparison_id)
        return comparison_id

    def cancel(self, given: str) -> bool:
        """Stop a comparison or one run. True where something was asked to stop, False where all had ended."""
        comparison_id, runs = self._store.find(given)
        moved = self._store.request_stop(runs)
        self._scheduler.stop(comparison_id, moved)
        self._board.refresh(comparison_id)
        return bool(moved)

    def resume(self, given: str, admit: Callable[[], None] | None = None) -> list[str]:
        """Queue a comparison's unfinished runs, or one run, again; return them. They go on from their checkpoints.

        admit: as for `submit`, asked where all of the comparison has ended.

        Raises:
            InputError: there is nothing to resume. Refused: it is at work elsewhere, or still stopping. QueueFull.
        """
        comparison_id, runs = self._store.find(given)
        self._make_sure_of_room()
        self._scheduler.wait_for_release(comparison_id, runs)
        with self._scheduler.lock:
            states = {run.run: run.state for run in self._store.runs(comparison_id)}
            wanted = [run for run in runs if states[run] in RESUMABLE]
            if not wanted:
                finished = all(states[run] is RunState.FINISHED for run in runs)
                said = "it has finished" if finished else "it is at work already"
                raise InputError("id", given, f"{said}, so there is nothing to resume")
            self._make_sure_of_checkpoints(comparison_id, given)
            if any(self._scheduler.holds(comparison_id, run) for run in wanted):
                raise Refused(f"{given} is still stopping; resume it in a moment.")
            owner = self._store.owner(comparison_id)
            is_open = not all(state.ended for state in states.values())
            if is_open and owner != self._ownership.name and not self._ownership.ended(owner):
                raise Refused(
                    f"Another process of RankLab is working on {comparison_id}; resume it when that has ended."
                )
            if not is_open:
                if admit:
                    admit()
                self._scheduler.make_sure_of_place()
            moved = self._store.requeue(comparison_id, wanted, self._ownership.name)
            self._scheduler.enqueue(comparison_id)
        return moved

    def _make_sure_of_checkpoints(self, comparison_id: str, given: str) -> None:
        """Refuses what would begin anew although its checkpoints are somewhere."""
        stored = folders.storage_of(self.home, comparison_id)
        if stored is not None and stored != getattr(self._executor, "storage", None):
            said = f"its checkpoints are in {stored}; resume it with --executor ray and RANKLAB_STORAGE={stored}"
            raise InputError("id", given, said)

    def delete(self, comparison_id: str) -> None:
        """Remove a comparison that has ended, with its folder.

        Raises:
            InputError: there is none. Refused: it is at work.
        """
        found, _ = self._store.find(comparison_id)
        if found != comparison_id:
            raise InputError("id", comparison_id, "only a whole comparison can be deleted")
        with self._scheduler.lock:
            if self._scheduler.busy(found):
                raise Refused(f"The comparison {found} is still at work; stop it before deleting it.")
            self._store.delete(found)
        self._remove_files(found)

    def _remove_files(self, comparison_id: str) -> None:
        shutil.rmtree(folders.comparison_folder(self.home, comparison_id), ignore_errors=True)
        self._board.forget(comparison_id)

    def hide(self, given: str) -> float:
        """Delete the comparison of an id in a way that can be undone: it is not shown any more at once, and removed by
        the server when the seconds that this returns are over.

        Raises:
            InputError: there is none. Refused: it is at work.
        """
        found, _ = self._store.find(given)
        with self._scheduler.lock:
            if self._scheduler.busy(found):
                raise Refused(f"The comparison {found} is still at work; stop it before deleting it.")
            seconds = self._bin.put(found)
        self._board.forget(found)
        return seconds

    def unhide(self, comparison_id: str) -> None:
        """Undo `hide`.

        Raises:
            InputError: its time is over.
        """
        self._bin.take_back(comparison_id)
        self._board.forget(comparison_id)

    def write_note(self, given: str, text: str) -> None:
        """Keep a note on a comparison or a run."""
        self._store.write_note(given, text)

    def folder(self, given: str) -> Path:
        """Where a comparison, or a run, keeps its files."""
        comparison_id, runs = self._store.find(given)
        folder = folders.comparison_folder(self.home, comparison_id)
        return folder if given == comparison_id else folder / runs[0]

    # --- what can be seen ---------------------------------------------------------------------------------------

    def view(self, comparison_id: str, after: int = 0) -> View:
        """A comparison as it is now, with its events after `after`. Cheap and shared: do not change what it returns."""
        return self._board.view(comparison_id, after)

    def comparisons(self) -> list[ComparisonRow]:
        """All comparisons, the newest first."""
        return self._board.comparisons()

    def recent(self, newest: int, seen_by: str | None = None) -> list[ComparisonRow]:
        """The newest comparisons and all that have not ended, the newest first; quick however many there are.
        seen_by: a visitor, and only what that visitor may see."""
        return self._board.recent(newest, seen_by)

    def hidden(self) -> list[tuple[ComparisonRow, float]]:
        """Deleted comparisons that can still be brought back, with the seconds left."""
        return self._bin.content()

    def list_runs(self, query: RunQuery, seen_by: str | None = None) -> RunPage:
        """One page of all runs of all comparisons, or of those that a visitor may see."""
        return self._store.list_runs(query, seen_by)

    def choices(self, seen_by: str | None = None) -> dict[str, list[tuple[str, int]]]:
        """What `list_runs` can be filtered by, with the number of runs."""
        return self._store.choices(seen_by)

    def visit_of(self, comparison_id: str) -> Visit | None:
        """Who asked for a comparison on a public page."""
        return self._store.visit_of(comparison_id)

    def unfinished_visits(self) -> list[Visit]:
        """Who asked for the comparisons that have not ended."""
        return self._store.unfinished_visits()

    def ended_visits_beyond(self, kept: int) -> list[str]:
        """Visitors' comparisons that have ended, without the newest `kept`."""
        return self._store.ended_visits_beyond(kept)

    def view_of_run(self, run: str, after: int = 0) -> View:
        """One run with its own events after `after`, but for the changes of its state."""
        return self._store.view_of_run(run, after)

    def notes(self, run: str) -> tuple[str, str]:
        """The notes on a run and on its comparison."""
        return self._store.notes(run)

    @property
    def changes(self) -> int:
        """A number that rises whenever something changes that can be seen."""
        return self._board.count

    def wait_for_change(self, seen: int, timeout: float | None = None) -> int:
        """Wait until `changes` is no longer `seen`, or until the time is over; return it."""
        self._board.wait(lambda: self._board.count != seen, timeout)
        return self._board.count

    def wait(self, given: str, timeout: float | None = None) -> bool:
        """Wait until a comparison, or a run, has ended; False where the time was over before."""
        comparison_id, wanted = self._store.find(given)

        def ended() -> bool:
            _, runs = self._board.rows(comparison_id)
            open_runs = [run for run in runs if run.run in wanted and not run.state.ended]
            return not open_runs and (given != comparison_id or not self._scheduler.busy(comparison_id))

        return self._board.wait(ended, timeout)

    def processes(self) -> list[int]:
        """The ids of the worker processes that live now, the spare one included."""
        return self._executor.processes()

    def health(self) -> Health:
        """Whether comparisons can be taken and trained now."""
        return Health(
            store=condition(self.home / "store.sqlite"),
            scheduler=self._scheduler.alive,
            executor=self._executor.alive(),
            room=has_room(self.home, self.limits.free),
        )

    def figures(self) -> Figures:
        """What is counted; quick however many runs there are."""
        waiting, at_work = self._scheduler.load()
        return Figures(self._store.states(), waiting, at_work, tuple(self.processes()))

    def on_stored(self, told: Callable[[float, int], None]) -> None:
        """Have every write of reports told: the seconds that the oldest waited for the store, and their number."""
        self._board.on_stored = told

    def close(self) -> None:
        """Start nothing more, have workers save and stop, mark what is unfinished as interrupted; within 10 seconds."""
        if self._closed:
            return
        self._closed = True
        self._bin.close()
        self._scheduler.close()
        self._executor.close()
        try:
            self._store.interrupt([self._ownership.name], patience=0.5)
        except Refused as error:
            log.warning("unfinished runs will be marked at the next start: %s", error)
        self._store.close()
        self._ownership.close()

    def _make_sure_of_room(self) -> None:
        free = folders.free_bytes(self.home)
        if free < self.limits.free:
            where = "" if public_mode() else f" of {self.home}"
            raise DiskFull(
                f"Only {free // 2**20} MB are free on the disk{where} and {self.limits.free // 2**20} MB are "
                "needed to start; delete runs that are not needed any more."
            )
