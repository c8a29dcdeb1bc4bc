"""Turns: a worker's runs train for a moment each, so that their curves grow side by side, and each ends by itself.

A run has its turns alone, or a group of runs has them together, in lockstep.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from peft_core.records import Emit, InputError, RunFailure, RunState, StateRecord
from peft_core.training.lockstep import Together
from peft_core.training.loop import Run, evaluated, finish, train
from peft_core.training.meter import Meter
from peft_core.training.result import result_of
from peft_core.training.totals import Totals

logger = logging.getLogger(__name__)
TURN_SECONDS = 0.2
"""How long a run trains before the next one has its turn."""
FAILURES = (RunFailure, InputError, RuntimeError, MemoryError, OSError)
"""What ends one run and leaves the others alone. Anything else ends the worker: a defect, or a device assert, after
which the device answers nobody in this process."""

Notice = Callable[[dict[str, Any]], None]
Stop = Callable[[str], bool]


@dataclass(frozen=True)
class Told:
    """Whom a turn tells what happens, and asks whether a run is to stop. baseline: the score without training."""

    emit: Emit
    notice: Notice
    stop: Stop
    baseline: float | None

    def cancelled(self, run: Run) -> None:
        run.save()
        self.emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.CANCELLED))

    def finished(self, run: Run) -> None:
        result = result_of(run, self.baseline)
        self.emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.FINISHED, result=result))

    def failed(self, run: Run, error: BaseException) -> None:
        logger.warning("run %s failed at step %d", run.spec.run, run.step, exc_info=error)
        self.emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.FAILED, error=reason(error)))


class Alone:
    """A run that takes its turns by itself."""

    def __init__(self, run: Run) -> None:
        self.run, self._records = run, train(run)

    def take(self, told: Told) -> bool:
        """Lets the run train for a moment, and adds what it used to its totals. False when it has ended."""
        run = self.run
        told.notice({"active": run.spec.run})
        until, ended = time.monotonic() + TURN_SECONDS, False
        try:
            with run.meter.turn(run.totals):
                while time.monotonic() < until and not ended:
                    if told.stop(run.spec.run):
                        told.cancelled(run)
                        return False
                    record = next(self._records, None)
                    ended = record is None
                    if record is not None:
                        told.emit(record)
            if ended:
                told.finished(run)
            return not ended
        except torch.AcceleratorError:
            raise
        except FAILURES as error:
            told.failed(run, error)
            return False


class InStep:
    """Runs that advance together. Each has its own evaluations, checkpoints and end; none of those touches the others.

    Args:
        live: the runs that train.
        passengers: the rest of the group, which has ended: they are computed too, so that the others' arithmetic is
            what it was.
    """

    def __init__(self, live: Sequence[Run], passengers: Sequence[Run] = ()) -> None:
        self._live, self._together = list(live), Together([*live, *passengers])
        self._saved_at = -1

    def take(self, told: Told) -> bool:
        """Lets the runs train for a moment, as long as they would have had one by one. False when all have ended."""
        told.notice({"active": [run.spec.run for run in self._live]})
        until = time.monotonic() + TURN_SECONDS * len(self._live)
        done: list[Run] = []
        with _metered(self._live):
            while self._live and not done and time.monotonic() < until:
                self._end_those_asked(told)
                due = next((run for run in self._live if run.evaluation_due()), None)
                done = [run for run in self._live if due is None and run.step == run.total_steps]
                if due is not None:
                    self._each(told, due, lambda run: self._evaluate(run, told))
                elif self._live and not done:
                    self._save(told)
                    self._advance(told)
        for run in done:
            self._each(told, run, lambda run: self._finish(run, told))
        return bool(self._live)

    def _end_those_asked(self, told: Told) -> None:
        for run in [run for run in self._live if told.stop(run.spec.run)]:
            self._live = [other for other in self._live if other is not run]
            self._each(told, run, told.cancelled)

    def _evaluate(self, run: Run, told: Told) -> None:
        before = run.checkpointed_at
        for record in evaluated(run):
            told.emit(record)
        if run.checkpointed_at != before:
            self._saved_at = run.step

    def _finish(self, run: Run, told: Told) -> None:
        finish(run)
        told.finished(run)
        self._live = [other for other in self._live if other is not run]

    def _save(self, told: Told) -> None:
        """Where one run saves a checkpoint, all do: a group that is resumed has its runs at one step."""
        for run in self._live:
            before = run.checkpointed_at
            self._each(told, run, Run.save_if_due)
            if run.checkpointed_at != before:
                self._saved_at = run.step
        saving = [run for run in self._live if run.step == self._saved_at and run.checkpointed_at != run.seconds]
        for run in saving:
            self._each(told, run, Run.save)

    def _advance(self, told: Told) -> None:
        lowest = min((run.step for run in self._live), default=0)
        try:
            taken = self._together.step([run.spec.run for run in self._live])
        except torch.AcceleratorError:
            raise
        except FAILURES as error:
            for run in [run for run in self._live if run.step == lowest]:
                self._fail(told, run, error)
            return
        for run in [run for run in self._live if run.spec.run in taken]:
            found = taken[run.spec.run]
            if not isinstance(found, Exception):
                told.emit(found)
            elif isinstance(found, FAILURES):
                self._fail(told, run, found)
            else:
                raise found

    def _each(self, told: Told, run: Run, act: Callable[[Run], None]) -> None:
        """Does something for one run, which fails where that fails."""
        try:
            act(run)
        except torch.AcceleratorError:
            raise
        except FAILURES as error:
            self._fail(told, run, error)

    def _fail(self, told: Told, run: Run, error: Exception) -> None:
        told.failed(run, error)
        self._live = [other for other in self._live if other is not run]


@contextmanager
def _metered(runs: Sequence[Run]) -> Iterator[None]:
    """Adds a turn to the totals of all runs that have it together: energy in equal parts, peaks as they are."""
    runs, shared = list(runs), Totals()
    try:
        with Meter(runs[0].attached.device).turn(shared):
            yield
    finally:
        joules = None if shared.joules is None else shared.joules / len(runs)
        for run in runs:
            run.totals.add_turn(joules, shared.device_peak, shared.host_peak)


def reason(error: BaseException) -> str:
    """The sentence shown where a failed run's curve would be."""
    if isinstance(error, RunFailure | InputError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
        return "out of memory; a smaller batch_size, a shorter max_length or a smaller model needs less"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk full; delete runs that are not needed any more and resume"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
