"""The executor for a Ray cluster: every job is an actor on some node, and a lost node costs what it had in hand.

Ray places the actors by their resources, watches nodes and processes, and authenticates. It is spoken to by a process
beside this one (`ray_bridge.py`); nothing of Ray is imported here. A job whose node was lost begins again on another
one, a bounded number of times: with the runs that have not ended, from the newest checkpoints whose events are here
(`numbering.py`). So every attempt has an actor of its own: one that Ray restarted would know the first attempt's job.
What a run does to itself, a crash or its lack of memory, is its own end and is not tried again.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft_core
from peft_core.records import Offer
from peft_core.runs.executors import Worker
from peft_core.runs.job import DEFAULT_TRAINER, Job, reason
from peft_core.runs.process import COLD_START
from peft_core.runs.ray_options import RayOptions, require_ray, secured
from peft_core.runs.ray_worker import RayWorker

log = logging.getLogger(__name__)
CONNECT_SECONDS = 60.0
"""How long the first connection may take."""
RECONNECT_SECONDS, PAUSE_SECONDS = 180.0, 1.0
"""How long a cluster may be away whose head was restarted, and the pause before it is looked for again."""
MOST_WORKERS = 64
"""Workers that one comparison is offered at most."""
_CLOSE_SECONDS = 8.0


class RayExecutor:
    """Trains on a Ray cluster.

    Args:
        folder: for the log of the process that is connected to the cluster.
        options: the cluster and what a worker gets of it.

    Raises:
        InputError: Ray is missing or too old, or the cluster must not be joined; nothing is started then.
    """

    def __init__(self, folder: Path, trainer: str = DEFAULT_TRAINER, options: RayOptions | None = None) -> None:
        require_ray()
        self.options = options or RayOptions.of()
        self._environment = secured(self.options.address, os.environ)
        if self.options.storage:
            from peft_core.runs.storage import Storage

            Storage(self.options.storage)
        self._folder, self._trainer = folder, trainer
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._resources: dict[str, float] = {}
        self._connected, self._closed = threading.Event(), False
        self._refused, self._away_since = "", time.monotonic()
        self._patience = RECONNECT_SECONDS if self.options.address is None else CONNECT_SECONDS
        self._waiting: list[RayWorker] = []
        self._at_work: dict[int, RayWorker] = {}
        self._next = 0
        self._kick = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="ray", daemon=True)
        self._keeper.start()

    # --- as the supervisor sees it ------------------------------------------------------------------------------

    @property
    def storage(self) -> str | None:
        """The URL where the runs leave their checkpoints; None: the comparison's own folder."""
        return self.options.storage

    def warm(self, spares: int = 1) -> None:
        """Join the cluster. No worker waits there: it would hold what others need."""
        self._kick.set()

    def offer(self, several: bool) -> Offer:
        slots = self.slots() if several else 1
        return Offer(
            workers=slots, cores=self.options.threads, start_seconds=COLD_START if slots > 1 else 0.0, own_cores=True
        )

    def slots(self) -> int:
        """Workers that the cluster has room for, as it was when it was joined."""
        self._kick.set()
        end = time.monotonic() + CONNECT_SECONDS
        while not self._connected.wait(0.1) and self.alive() and time.monotonic() < end:
            continue
        with self._lock:
            room = int(self._resources.get("CPU", 0) // self.options.cpus)
            if self.options.gpus:
                room = min(room, int(self._resources.get("GPU", 0) // self.options.gpus))
        return max(1, min(room, MOST_WORKERS))

    def start(self, job: Job) -> Worker:
        worker = RayWorker(job, self)
        self.again(worker)
        return worker

    def processes(self) -> list[int]:
        with self._lock:
            return [self._process.pid] if self._process is not None and self._process.poll() is None else []

    def alive(self) -> bool:
        """Whether there is a connection, or one may still come."""
        return self._connected.is_set() or time.monotonic() - self._away_since < self._patience

    def close(self) -> None:
        with self._lock:
            self._closed = True
            process, workers = self._process, [*self._waiting, *self._at_work.values()]
        self._kick.set()
        for worker in workers:
            worker.kill()
        if process is not None:
            with self._writing, suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            try:
                process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._keeper.join(2.0)

    # --- as its workers see it ----------------------------------------------------------------------------------

    def again(self, worker: RayWorker) -> None:
        """Have what is left of a worker's job begun, when it is due."""
        with self._lock:
            self._at_work = {number: other for number, other in self._at_work.items() if other is not worker}
            if worker not in self._waiting:
                self._waiting.append(worker)
        self._kick.set()

    def forget(self, worker: RayWorker, number: int | None) -> None:
        """A worker has come to its end."""
        with self._lock:
            self._waiting = [other for other in self._waiting if other is not worker]
            self._at_work = {key: other for key, other in self._at_work.items() if other is not worker}
        if number is not None:
            self.tell({"end": number})

    def tell(self, line: Mapping[str, Any]) -> None:
        """A line for the bridge; lost where it is gone, which everyone concerned is told."""
        with self._lock:
            process = self._process
        if process is not None and process.stdin is not None:
            with self._writing, suppress(OSError, ValueError):
                process.stdin.write(json.dumps(line, allow_nan=False).encode() + b"\n")
                process.stdin.flush()

    # --- the connection -----------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._closed:
            self._kick.wait(0.2)
            self._kick.clear()
            with self._lock:
                if self._process is None and not self._closed:
                    try:
                        self._open()
                    except OSError as error:
                        self._refused = reason(error)
            if self._connected.is_set():
                self._begin_what_is_due()
            else:
                self._wait_for_cluster()

    def _begin_what_is_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [worker for worker in self._waiting if worker.due <= now]
            self._waiting = [worker for worker in self._waiting if worker not in due]
            numbered = [(self._next + place, worker) for place, worker in enumerate(due, start=1)]
            self._next += len(due)
            self._at_work = self._at_work | dict(numbered)
        for number, worker in numbered:
            if worker.ended() is None:
                try:
                    self.tell(worker.begin(number))
                except OSError as error:
                    worker.hear({"ending": {"how": "failed", "reason": reason(error), "log": ""}})

    def _wait_for_cluster(self) -> None:
        """While there is no connection, waiting is a sign of life; after a while it is the reason of a failure."""
        with self._lock:
            waiting = list(self._waiting)
        late = time.monotonic() - self._away_since > self._patience
        for worker in waiting:
            worker.sign()
            if late:
                worker.hear({"ending": {"how": "killed", "reason": self._no_cluster(), "log": ""}})

    def _no_cluster(self) -> str:
        where = self.options.address or "of this machine"
        return f"the Ray cluster {where} cannot be reached" + (f" ({self._refused})" if self._refused else "")

    def _open(self) -> None:
        package = str(Path(peft_core.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (package, self._environment.get("PYTHONPATH"))))
        arguments = ("--trainer", self._trainer, "--options", json.dumps(asdict(self.options)))
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "ray.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "peft_core.runs.ray_bridge", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment | {"PYTHONPATH": path},
                start_new_session=True,
            )
        name = f"lines of {self._process.pid}"
        threading.Thread(target=self._read, args=(self._process,), name=name, daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                with suppress(ValueError):  # it was ended in the middle of a line
                    self._hear(json.loads(line))
        process.wait()
        with self._lock:
            cut, self._at_work = list(self._at_work.values()), {}
            if self._connected.is_set():
                self._away_since = time.monotonic()
            self._connected.clear()
        for worker in cut:
            worker.lost("the connection to the cluster was lost")
        if not self._closed:
            time.sleep(PAUSE_SECONDS)
        with self._lock:
            self._process = None
        self._kick.set()

    def _hear(self, line: Mapping[str, Any]) -> None:
        if "cluster" in line:
            with self._lock:
                self._resources, self._refused, self._patience = line["cluster"], "", RECONNECT_SECONDS
            self._connected.set()
            self._kick.set()
        elif "refused" in line:
            self._refused = line["refused"]
            if line.get("unauthenticated"):
                self._patience = 0.0
            log.warning("%s", self._no_cluster())
        else:
            with self._lock:
                worker = self._at_work.get(line["of"])
            if worker is not None:
                worker.hear(line)
