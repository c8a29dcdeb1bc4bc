"""Pushes of finished runs to the Hub, made behind the page: asked for and waited for. No token is kept."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft_core.records import InputError
from peft_core.runs import Refused
from ui.child import CommandFailed, Commands
from ui.exports import FORMATS, KEPT_SECONDS

log = logging.getLogger(__name__)
MOST_WAITING = 8
AT_A_TIME = 2
LONGEST_SECONDS = 1800.0


@dataclass(frozen=True)
class Wanted:
    """What is to be pushed where. new: to no repository that is there already."""

    run: str
    kind: str
    repository: str
    new: bool


Push = Callable[[Wanted, str, Path], str]
"""Pushes with a token, over an empty folder of its own; the repository's address. CommandFailed: the sentence."""


@dataclass
class PushJob:
    """A push that was asked for. message: why it failed. address: of the repository."""

    visitor: str
    begun: float
    state: Literal["waiting", "ready", "failed"] = "waiting"
    message: str = ""
    address: str = ""


class Pushes:
    """Makes pushes in threads of its own. All methods may be called from any thread."""

    def __init__(self, folder: Path, push: Push) -> None:
        self._folder, self._push = folder, push
        self._lock = threading.Lock()
        self._jobs: dict[str, PushJob] = {}
        self._workers = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="push")

    def begin(self, wanted: Wanted, token: str, visitor: str) -> str:
        """Have a push made; its id.

        Raises:
            InputError: there is no such format, or it is no name of a repository.
            Refused: this visitor has one under way, or too many are.
        """
        if wanted.kind not in FORMATS:
            raise InputError("format", wanted.kind, "it must be one of " + ", ".join(FORMATS))
        from peft_core.export.hub import check_repository, check_token

        try:
            check_repository(wanted.repository)
        except InputError as error:
            raise InputError("repository", wanted.repository, error.allowed) from None
        token = check_token(token) if token.strip() else ""
        with self._lock:
            self._forget()
            waiting = [job for job in self._jobs.values() if job.state == "waiting"]
            if any(job.visitor == visitor for job in waiting):
                raise Refused("A push of yours is under way; try again when it has ended.")
            if len(waiting) >= MOST_WAITING:
                raise Refused("Many pushes are under way; try again when one of them has ended.")
            name = secrets.token_hex(16)
            self._jobs[name] = PushJob(visitor, time.monotonic())
        self._workers.submit(self._work, name, wanted, token)
        return name

    def job(self, name: str) -> PushJob:
        """How far a push is.

        Raises:
            InputError: there is none of this id.
        """
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise InputError("job", name, "there is no such push any more")
        return job

    def sweep(self) -> None:
        """Remove whatever an earlier server left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Make no more."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _forget(self) -> None:
        now = time.monotonic()
        kept = {k: job for k, job in self._jobs.items() if job.state == "waiting" or now - job.begun < KEPT_SECONDS}
        self._jobs = kept

    def _work(self, name: str, wanted: Wanted, token: str) -> None:
        job, scratch = self._jobs[name], self._folder / name
        try:
            scratch.mkdir(parents=True)
            job.address = self._push(wanted, token, scratch)
            job.state = "ready"
        except CommandFailed as error:
            job.message, job.state = str(error), "failed"
        except OSError as error:
            log.warning("a push failed: %s", error)
            job.message, job.state = f"The folder could not be written ({error.strerror or error}).", "failed"
        except Exception:
            log.exception("a push failed")
        finally:
            if job.state == "waiting":
                job.message, job.state = "The push failed; the server's log says why.", "failed"
            shutil.rmtree(scratch, ignore_errors=True)


class PushCommand:
    """Runs `export --push-to-hub` and writes the token to its standard input; an empty one is this machine's login."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def __call__(self, wanted: Wanted, token: str, scratch: Path) -> str:
        arguments = ["export", wanted.run, "--format", wanted.kind, "--push-to-hub", wanted.repository]
        arguments += ["--token-stdin", "--json", *(["--new-repository"] if wanted.new else [])]
        own = {"TMPDIR": str(scratch), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        try:
            output = self._commands.run(arguments, f"push of {wanted.run}", token, own, LONGEST_SECONDS)
        except CommandFailed as error:
            raise CommandFailed(readable(str(error))) from None
        return str(json.loads(output)["repository"])


def readable(sentence: str) -> str:
    """A sentence of the command line for the page, where no option is called --push-to-hub."""
    said = sentence.removeprefix("push_to_hub is ")
    return sentence if said == sentence else "Not pushed: " + said.partition("; ")[2]
