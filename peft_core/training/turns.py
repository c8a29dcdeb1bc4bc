"""Turns: a worker's runs train for a moment each, so that their curves grow side by side, and each ends by itself."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from peft_core.records import Emit, InputError, RunFailure, RunState, StateRecord
from peft_core.training.loop import Run, train
from peft_core.training.result import result_of

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


def reason(error: BaseException) -> str:
    """The sentence shown where a failed run's curve would be."""
    if isinstance(error, RunFailure | InputError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error):
        return "out of memory; a smaller batch_size, a shorter max_length or a smaller model needs less"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "disk full; delete runs that are not needed any more and resume"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
