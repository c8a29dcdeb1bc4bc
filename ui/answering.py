"""The models' own process: started when something is asked, started anew where it ended, ended with the page.

Torch and tokenisers stay out of the process that serves pages, which they would keep waiting.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from peft_core.runs import Refused
from ui.form import FieldError, FormError

log = logging.getLogger(__name__)
MOST_WAITING = 16
LONGEST_WAIT = 180.0
GONE = "The models' process ended; try again."
Told = Callable[[int, int], None]
"""Gets how many of how many answers a table has."""


class Answering(Protocol):
    """What answers; every method may be called from any thread."""

    def ask(self, command: Mapping[str, Any], told: Told | None = None, patience: float | None = LONGEST_WAIT) -> Any:
        """The answer to a command of `peft_core.commands._answering`.

        Args:
            told: hears of a table's progress. patience: seconds, after which the models' process is ended.

        Raises:
            FormError: what the models refuse, at its field. Refused: too many wait, or the process ended.
        """
        ...

    def close(self) -> None: ...


@dataclass
class Started:
    """A process, and what it has not answered yet, by number."""

    process: subprocess.Popen[bytes]
    waiting: dict[int, tuple[Future[Any], Told | None]] = field(default_factory=dict)
    gone: bool = False


class AnsweringProcess:
    """`Answering` by a process of its own over the store of a folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._started: Started | None = None
        self._number, self._closed = 0, False

    def ask(self, command: Mapping[str, Any], told: Told | None = None, patience: float | None = LONGEST_WAIT) -> Any:
        with self._lock:
            if self._closed:
                raise Refused("The server is shutting down.")
            started = self._running()
            if len(started.waiting) >= MOST_WAITING:
                raise Refused("Many questions wait for an answer; try again in a moment.")
            self._number += 1
            number, future = self._number, Future[Any]()
            started.waiting[number] = (future, told)
            self._send(started, {"number": number, **command})
        try:
            return future.result(patience)
        except Late:
            log.warning("%s took more than %s seconds, so the models' process is ended", command["kind"], patience)
            started.process.kill()
            raise Refused("The models took too long to answer, so they were stopped.") from None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            if self._started is not None:
                self._started.process.terminate()

    def _running(self) -> Started:
        """The process, or a new one where there is none or it ended. Within the lock."""
        from peft_core.runs.machine import usable_cores
        from peft_core.runs.process import worker_environment

        if self._started is not None and not self._started.gone and self._started.process.poll() is None:
            return self._started
        environment = worker_environment(os.environ, usable_cores()) | {"RANKLAB_HOME": str(self._home)}
        command = [sys.executable, "-P", "-m", "peft_core.commands._answering"]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._started = Started(process)
        threading.Thread(target=self._listen, args=(self._started,), name="answers", daemon=True).start()
        return self._started

    def _send(self, started: Started, command: Mapping[str, Any]) -> None:
        assert started.process.stdin is not None
        try:
            started.process.stdin.write(json.dumps(command).encode() + b"\n")
            started.process.stdin.flush()
        except OSError:
            raise Refused(GONE) from None

    def _listen(self, started: Started) -> None:
        """Hand answers out until the process ends."""
        assert started.process.stdout is not None
        for line in started.process.stdout:
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote
            reply = json.loads(line)
            if "progress" in reply:
                told = started.waiting[reply["number"]][1]
                if told is not None:
                    told(*reply["progress"])
                continue
            with self._lock:
                future, _ = started.waiting.pop(reply["number"])
            if "error" in reply:
                future.set_exception(FormError([FieldError(**reply["error"])]))
            else:
                future.set_result(reply["answer"])
        status = started.process.wait()
        with self._lock:
            started.gone = True
            left, started.waiting = list(started.waiting.values()), {}
        if left:
            log.warning("the models' process ended with %s before it had answered", status)
        for future, _ in left:
            future.set_exception(Refused(GONE))
