"""Commands of the engine in processes of their own: no model is loaded into the page's process and none stays there."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from peft_core.records import public_mode

log = logging.getLogger(__name__)
BAD_INPUT = 2
LONGEST_LOG = 4000


class CommandFailed(Exception):
    """Why a command gave nothing, in one sentence for the visitor."""


class Commands:
    """Starts commands and ends those that are under way. All methods may be called from any thread."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock, self._closed = threading.Lock(), False
        self._running: set[subprocess.Popen[str]] = set()

    def run(
        self,
        arguments: list[str],
        what: str,
        secret: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        limit: float | None = None,
    ) -> str:
        """Waits for a command.

        Args:
            arguments: behind ``python -m peft_core``.
            what: what it does, as the log and the visitor are told.
            secret: goes to its standard input, and nowhere else.
            environment: variables besides those of this process.
            limit: seconds after which it is ended.

        Returns:
            What it wrote to standard output.

        Raises:
            CommandFailed: its own sentence, or where to look.
        """
        process = self._start(arguments, environment)
        try:
            output, said = process.communicate(None if secret is None else f"{secret}\n", timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise CommandFailed(f"The {what} took longer than {limit or 0:g} seconds and was ended.") from None
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode == 0:
            return output
        if secret:
            said = said.replace(secret, "(not shown)")
        lines = [line for line in said.splitlines() if line.strip()]
        if process.returncode == BAD_INPUT and lines:
            raise CommandFailed(lines[-1])
        log.warning("the %s ended with %s:\n%s", what, process.returncode, said[-LONGEST_LOG:])
        raise CommandFailed(f"The {what} failed; the server's log says why.")

    def close(self) -> None:
        """End what is under way and start nothing more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                if process.poll() is None:
                    process.terminate()

    def _start(self, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._closed:
                raise CommandFailed("The server is shutting down.")
            process = subprocess.Popen(
                [sys.executable, "-m", "peft_core", *arguments],
                env={**_environment(), "RANKLAB_HOME": str(self._home), **environment},
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self._running.add(process)
            return process


def _environment() -> dict[str, str]:
    """That of this process; on a public page without anything of the host's that is secret."""
    if not public_mode():
        return dict(os.environ)
    from peft_core.runs.machine import usable_cores
    from peft_core.runs.process import worker_environment

    return worker_environment(os.environ, usable_cores())
