"""The default executor: every job in a process of its own, and spare ones that have imported everything wait."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import peft_core
from peft_core.records import Offer
from peft_core.runs.executors import Ending, Inbox, Worker
from peft_core.runs.job import DEFAULT_TRAINER, OUT_OF_MEMORY, Job
from peft_core.runs.machine import oom_kills, usable_cores

log = logging.getLogger(__name__)
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals by which a person or the system ends a process; others come from a crash."""
SPARE_PATIENCE = 20.0
"""Least seconds between two spare workers that are started: one that cannot start must not be started in a loop."""
MOST_SPARES = 2
"""Spare workers that wait: one for a comparison's first worker, one for its second."""
LOST_SPARES, STEADY = 3, 20.0
"""So many spare workers that ended by themselves, and none that stayed for so many seconds: none can be started."""
SPARE_START, COLD_START = 0.7, 4.0
"""Seconds until another worker trains: one that has waited loads the model, one that is started imports torch first."""
OUT_OF_TIME = "the worker used all the processor time that it may have (RANKLAB_WORKER_CPU_MINUTES)"
_PASSED = {
    *(
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "TMPDIR",
        "TEMP",
        "USER",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
        "SYSTEMROOT",
    ),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_DATASETS_CACHE", "HF_DATASETS_OFFLINE"),
    *("HF_HUB_DISABLE_XET", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"),
    *("TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "XDG_DATA_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
}
_PASSED_PREFIXES = ("LC_", "CUDA", "NVIDIA_", "RANKLAB_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Passed in both cases of their letters, but for one that holds a name and password."""
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "KEY", "AUTH")
_NO_LOGIN = "HF_HUB_DISABLE_IMPLICIT_TOKEN"


def worker_environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """What a worker gets of the environment: a short list of names, no secrets, and its number of threads."""
    passed = {
        name: value
        for name, value in environment.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and not any(word in name for word in _SECRET)
    }
    passed |= {_NO_LOGIN: environment[_NO_LOGIN]} if _NO_LOGIN in environment else {}
    passed |= {name: value for name, value in environment.items() if name.upper() in _PROXIES and "@" not in value}
    package = str(Path(peft_core.__file__).parent.parent)
    passed["PYTHONPATH"] = os.pathsep.join(filter(None, (package, passed.get("PYTHONPATH"))))
    passed |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # Threads that wait must sleep: beside a web server on two cores, spinning ones made a step ten times as slow.
    return passed | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


class ProcessWorker:
    """A process that is or becomes a job's worker. early_log: where it writes until it has a job."""

    def __init__(
        self, trainer: str, threads: int, early_log: Path, oom_count: Callable[[], int], inbox: Inbox | None = None
    ) -> None:
        self.inbox = inbox or Inbox()
        self.started = time.monotonic()
        self._oom_count, self._oom_before = oom_count, oom_count()
        self.early_log = self._log_file = early_log
        self._log_from = 0
        self._error, self._killed = "", False
        self._ended: Ending | None = None
        self._writing = threading.Lock()
        with self.early_log.open("wb") as errors:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", "peft_core.runs.worker", "--trainer", trainer],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=worker_environment(os.environ, threads),
                start_new_session=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._commands, self._reports = self.process.stdin, self.process.stdout
        name = f"reports of {self.process.pid}"
        self._reader = threading.Thread(target=self._read, args=(self._reports,), name=name, daemon=True)
        self._reader.start()

    def begin(self, job: Job) -> None:
        """Give it its job."""
        self._log_file = job.folder / "worker.log"
        self._log_from = self._log_file.stat().st_size if self._log_file.exists() else 0
        self._oom_before = self._oom_count()
        self.inbox.last_sign = self.inbox.last_work = time.monotonic()
        self._write({"job": job.model_dump(mode="json")})

    def stop(self, run: str | None) -> None:
        self._write({"stop": run})

    def kill(self) -> None:
        if self.process.poll() is None:
            self._killed = True
        self._kill_group()

    def ended(self) -> Ending | None:
        status = self.process.poll()
        if self._ended is None and status is not None:
            self._kill_group()  # what it may have started
            self._reader.join(timeout=2.0)
            with self._writing, suppress(OSError):
                self._commands.close()
            self._ended = self._ending(status)
        return self._ended

    def _ending(self, status: int) -> Ending:
        if self._killed:
            return Ending("stopped")
        if status == 0:
            return Ending("done")
        if status == -signal.SIGKILL and self._oom_count() > self._oom_before:
            return Ending("out_of_memory", OUT_OF_MEMORY)
        if status == -signal.SIGXCPU:
            return Ending("failed", OUT_OF_TIME)
        if -status in FROM_OUTSIDE:
            return Ending("killed", f"the worker was ended from outside ({signal.Signals(-status).name})")
        if self._error:
            return Ending("failed", self._error)
        how = f"status {status}" if status > 0 else signal.Signals(-status).name
        last = self._last_log_line()
        return Ending("failed", f"the worker crashed ({how}): {last}" if last else f"the worker crashed ({how})")

    def _last_log_line(self) -> str:
        return _last_line(self._log_file, self._log_from) or _last_line(self.early_log, 0)

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _write(self, command: Mapping[str, object]) -> None:
        line = json.dumps(command, allow_nan=False).encode() + b"\n"
        with self._writing, suppress(OSError, ValueError):  # it may just have ended, which `ended` tells
            self._commands.write(line)
            self._commands.flush()

    def _read(self, pipe: BinaryIO) -> None:
        with pipe:
            for line in pipe:
                try:
                    report = json.loads(line)
                except ValueError:
                    log.warning("a worker ended in the middle of a report")
                    continue
                if "error" in report:
                    self._error = report["error"]
                self.inbox.put(report)


class ProcessExecutor:
    """Trains in processes.

    Args:
        folder: for the logs of spare workers.
        threads: the most of each worker; default: the cores.
        workers: that one comparison may have at work at once; default: one a thread.
    """

    def __init__(
        self,
        folder: Path,
        trainer: str = DEFAULT_TRAINER,
        *,
        threads: int | None = None,
        workers: int | None = None,
        oom_count: Callable[[], int] = oom_kills,
    ) -> None:
        self._folder, self._trainer, self._oom_count = folder, trainer, oom_count
        self._threads = threads or usable_cores()
        self._workers = workers or self._threads
        self._lock = threading.Lock()
        self._spares: list[ProcessWorker] = []
        self._next_spare, self._lost = 0.0, 0
        self._working: list[ProcessWorker] = []

    def warm(self, spares: int = 1) -> None:
        with self._lock:
            living = [spare for spare in self._spares if spare.ended() is None]
            if any(time.monotonic() - spare.started > STEADY for spare in living):
                self._lost = 0
            if lost := len(self._spares) - len(living):
                log.warning("a spare worker ended; see %s", self._folder / "spare.log")
                self._spares, self._lost = living, self._lost + lost
            lacking = min(spares, self._workers, MOST_SPARES) - len(self._spares)
            if lacking > 0 and time.monotonic() >= self._next_spare:
                self._next_spare = time.monotonic() + SPARE_PATIENCE
                for _ in range(lacking):
                    self._spares.append(self._new())

    def offer(self, several: bool) -> Offer:
        """Where no spare worker waits, that for a second share is started already: both import at the same time."""
        if not several or self._workers == 1:
            return Offer(workers=1, cores=self._threads)
        with self._lock:
            waiting = len([spare for spare in self._spares if spare.ended() is None])
        if not waiting:
            self.warm(MOST_SPARES)
        seconds = COLD_START if waiting == 1 else SPARE_START
        return Offer(workers=self._workers, cores=self._threads, start_seconds=seconds)

    def start(self, job: Job) -> Worker:
        with self._lock:
            spares = [spare for spare in self._spares if spare.ended() is None]
            worker = spares.pop(0) if spares else self._new()
            self._spares = spares
            self._next_spare = 0.0
            self._working = [*(other for other in self._working if other.process.poll() is None), worker]
        worker.begin(job)
        return worker

    def processes(self) -> list[int]:
        with self._lock:
            workers = [*self._working, *self._spares]
            return [worker.process.pid for worker in workers if worker.process.poll() is None]

    def alive(self) -> bool:
        return self._lost < LOST_SPARES

    def close(self) -> None:
        with self._lock:
            spares, self._spares = self._spares, []
            self._next_spare = float("inf")
        for spare in spares:
            spare.kill()
        for spare in spares:
            spare.process.wait(timeout=5.0)
            spare.ended()

    def _new(self) -> ProcessWorker:
        taken = {spare.early_log.name for spare in self._spares}
        name = next(name for name in ("spare.log", "spare-2.log", "spare-3.log") if name not in taken)
        return ProcessWorker(self._trainer, self._threads, self._folder / name, self._oom_count)


def _last_line(file: Path, start: int) -> str:
    """The last line with text in a file, from byte `start` on; empty where there is none."""
    try:
        with file.open("rb") as opened:
            end = opened.seek(0, os.SEEK_END)
            opened.seek(max(start, end - 8192))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
