"""The process that talks to Ray: `python -m peft_core.runs.ray_bridge`. It is started by the Ray executor.

It is a process of its own because Ray ends whoever is connected when the head or the own node is lost, and that must
not be the one that has the page, the store and the queue. Standard input: JSON lines `{"begin": number, "job": ...}`,
`{"stop": number, "run": id or null}`, `{"end": number}`, `{"took": number, "count": n}`; its end means that the
executor is gone. Standard output: JSON lines `{"cluster": resources}` once it is connected, or `refused`; and with
`of`, the number of an attempt, its `reports`, a sign of life (`silent`: seconds since the worker's last), `waits`,
`lost` or `ending`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import peft_core
from peft_core.records import RunState
from peft_core.runs.job import Job, reason
from peft_core.runs.machine import usable_cores
from peft_core.runs.ray_host import Host, described, place_of, worker_settings
from peft_core.runs.ray_options import RayOptions, in_words
from peft_core.runs.storage import Storage
from peft_core.runs.worker import Reporter, leave, take_pipes

log = logging.getLogger(__name__)
MOST_AHEAD = 2000
"""Reports that the executor may have got and nobody has taken yet; then no more are asked for."""
TAKE_SECONDS, END_SECONDS, SIGN_SECONDS = 0.5, 2.0, 1.0
IDLE_SECONDS = 5.0
PATIENCE = 3
"""Signs of life while a worker waits for its place, before that is told."""
OBJECT_STORE = 80 * 2**20
"""Of a cluster that is started here: no rows and no weights pass through Ray."""
NO_MEMORY = ("running low on memory", "memory monitor", "memory pressure", "outofmemoryerror")
"""What Ray says where it ended a process for its node's memory; it names memory as a possible cause elsewhere, too."""
EXIT_REFUSED = 4


class Attempt:
    """One job on one actor, from the request for its resources to its end."""

    def __init__(self, number: int, job: Job, bridge: Bridge) -> None:
        self.number, self._job, self._bridge = number, job, bridge
        self._ahead, self._room = 0, asyncio.Event()
        self._stops: list[str | None] = []
        self._actor: Any = None
        self._begun, self._closing = False, False
        self._key: tuple[tuple[str, Any], ...] = ()
        self.task = asyncio.create_task(self._live())

    def took(self, count: int) -> None:
        self._ahead -= count
        self._room.set()

    def stop(self, run: str | None) -> None:
        self._stops.append(run)
        if self._begun:
            self._actor.stop.remote(run)

    async def end(self) -> None:
        """End the worker without asking it. One that has come to its end is not kept from putting its actor away."""
        if not self._closing:
            self.task.cancel()
        await asyncio.wait({self.task})
        self._bridge.attempts.pop(self.number, None)

    async def _live(self) -> None:
        import ray

        try:
            if await self._begin():
                await self._follow()
        except ray.exceptions.RayTaskError as error:
            self._say(ending={"how": "failed", "reason": f"{type(error.cause).__name__}: {error.cause}", "log": ""})
        except ray.exceptions.RayError as error:
            self._say(lost=_why(error))
        except OSError as error:
            self._say(ending={"how": "failed", "reason": f"the storage cannot be read: {error}", "log": ""})
        except Exception as error:  # whatever else Ray refuses, resources for one: nobody waits for it
            log.exception("attempt %d cannot be made", self.number)
            self._say(ending={"how": "failed", "reason": reason(error), "log": ""})
        finally:
            await self._close()

    async def _begin(self) -> bool:
        """Have the actor placed and the worker started; false where it cannot be done on that node."""
        import ray

        options = self._bridge.options
        there = await self._patiently(ray.cluster_resources)
        resources = options.resources(self._job.spec.training.device, there.get("GPU", 0))
        await self._patiently(self._send_files)
        given = described(self._job), self._bridge.trainer, options.threads, options.storage, worker_settings()
        self._key = tuple(sorted(resources.items()))
        waits = None
        while waits is None and (idle := self._bridge.take_idle(self._key)) is not None:
            self._actor, waits = idle, asyncio.wrap_future(idle.begin.remote(*given).future())
            await asyncio.wait({waits}, timeout=END_SECONDS)
            if waits.done() and isinstance(waits.exception(), ray.exceptions.RayActorError):
                waits = None  # it was lost while nothing was at work on it
        if waits is None:
            host = self._bridge.host.options(max_restarts=0, max_concurrency=4, **resources)
            self._actor = await self._patiently(host.remote)
            waits = asyncio.wrap_future(self._actor.begin.remote(*given).future())
        signs = 0
        while not (await asyncio.wait({waits}, timeout=SIGN_SECONDS))[0]:
            signs += 1
            self._say(waits=in_words(resources) if signs >= PATIENCE else "", silent=0.0)
        answer = waits.result()
        if answer["version"] != peft_core.__version__:
            answer["refused"] = f"the node has version {answer['version']} of RankLab, not {peft_core.__version__}"
        if answer["refused"]:
            self._say(ending={"how": "failed", "reason": answer["refused"], "log": ""})
            return False
        self._begun = True
        self._say(begun=True, silent=0.0)
        for run in self._stops:
            self._actor.stop.remote(run)
        return True

    async def _patiently(self, work: Callable[[], Any]) -> Any:
        """The result of what blocks while the head or the storage is away, with signs of life meanwhile."""
        task = asyncio.create_task(asyncio.to_thread(work))
        while not (await asyncio.wait({task}, timeout=SIGN_SECONDS))[0]:
            self._say(silent=0.0)
        return task.result()

    async def _follow(self) -> None:
        after = 0
        while True:
            while self._ahead >= MOST_AHEAD:
                self._room.clear()
                await self._room.wait()
            answer = await self._actor.take.remote(after, TAKE_SECONDS)
            if reports := answer["reports"]:
                assert answer["first"] == after + 1, "the actor's numbers have no gaps"
                after += len(reports)
                self._ahead += len(reports)
                await asyncio.to_thread(self._fetch_files, reports)
                self._say(reports=reports, silent=answer["silent"])
            else:
                self._say(silent=answer["silent"])
            if answer["ending"]:
                self._say(ending=answer["ending"])
                return

    def _send_files(self) -> None:
        """What the runs begin with goes to the storage, where there is one."""
        starts = self._job.folder / "starts"
        if self._bridge.storage is not None and starts.is_dir() and not self._job.places:
            self._bridge.storage.put_folder(starts, f"comparisons/{self._job.comparison}/shared/starts")

    def _fetch_files(self, reports: list[dict[str, Any]]) -> None:
        """A run that has ended is on this disk as if it had been trained here."""
        if self._bridge.storage is None or self._job.places:
            return
        for event in (report.get("event", {}) for report in reports):
            if event.get("event") == "state" and RunState(event["state"]).ended:
                folder = self._job.folder / event["run"]
                self._bridge.storage.get_folder(place_of(self._job, event["run"]), folder, without=("checkpoints",))

    async def _close(self) -> None:
        """End the worker; its actor takes another job where it has answered, and is ended where it has not."""
        import ray

        self._closing = True
        if self._actor is not None:
            actor, self._actor = self._actor, None
            closing = asyncio.wrap_future(actor.close.remote().future())
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({closing}, timeout=END_SECONDS)
            if self._begun and closing.done() and closing.exception() is None:
                self._bridge.keep_idle(self._key, actor)
            else:
                await asyncio.to_thread(ray.kill, actor)
        self._bridge.attempts.pop(self.number, None)

    def _say(self, **what: Any) -> None:
        self._bridge.say({"of": self.number, **what})


class Bridge:
    """Between an executor's lines and the actors of a cluster."""

    def __init__(self, reporter: Reporter, options: RayOptions, trainer: str) -> None:
        import ray

        self.options, self.trainer, self._reporter = options, trainer, reporter
        self.storage = Storage(options.storage) if options.storage else None
        self.host: Any = ray.remote(Host)
        self.attempts: dict[int, Attempt] = {}
        self._idle: list[tuple[Any, Any]] = []

    def take_idle(self, key: tuple[tuple[str, Any], ...]) -> Any:
        """An actor with these resources that has nothing to do; None where there is none."""
        found = next((place for place, (other, _) in enumerate(self._idle) if other == key), None)
        return None if found is None else self._idle.pop(found)[1]

    def keep_idle(self, key: tuple[tuple[str, Any], ...], actor: Any) -> None:
        """An actor waits a moment for another job before its resources are given back: starting one takes seconds."""
        entry = (key, actor)
        self._idle.append(entry)
        asyncio.get_running_loop().call_later(IDLE_SECONDS, self._let_go, entry)

    def _let_go(self, entry: tuple[Any, Any]) -> None:
        import ray

        if any(other is entry for other in self._idle):
            self._idle = [other for other in self._idle if other is not entry]
            asyncio.get_running_loop().run_in_executor(None, ray.kill, entry[1])

    def say(self, line: Mapping[str, Any]) -> None:
        self._reporter.send(dict(line))

    def obey(self, line: Mapping[str, Any]) -> None:
        """Carry out a line of the executor."""
        if "begin" in line:
            self.attempts[line["begin"]] = Attempt(line["begin"], Job.model_validate(line["job"]), self)
        elif (attempt := self.attempts.get(next(iter(line.values())))) is None:
            return
        elif "stop" in line:
            attempt.stop(line["run"])
        elif "took" in line:
            attempt.took(line["count"])
        else:
            self._ends = asyncio.create_task(attempt.end())


def _why(error: BaseException) -> str:
    """The loss of an actor in half a sentence."""
    text = " ".join(str(error).split())
    if "OutOfMemory" in type(error).__name__ or any(words in text.lower() for words in NO_MEMORY):
        return "the node ran out of memory"
    if "node" in text.lower() and any(word in text.lower() for word in ("died", "dead", "terminated", "removed")):
        return "the node was lost"
    log.warning("an actor is gone: %s", text)
    return "the worker's Ray process was lost"


async def serve(bridge: Bridge, pipe: int) -> None:
    """Read lines until the executor is gone."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()

    def read() -> None:
        with os.fdopen(pipe, "rb") as opened:
            for line in opened:
                loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, name="lines", daemon=True).start()
    while (line := await lines.get()) is not None:
        bridge.obey(json.loads(line))
    await asyncio.gather(*(attempt.end() for attempt in list(bridge.attempts.values())))


def connect(address: str | None) -> dict[str, float]:
    """Join the cluster, or start one of this machine; its resources."""
    import ray

    quiet: dict[str, Any] = {"namespace": "ranklab", "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        own: dict[str, Any] = {"num_cpus": usable_cores(), "include_dashboard": False}
        own["object_store_memory"] = OBJECT_STORE
        ray.init("local", **own, **quiet)
    else:
        ray.init(address, **quiet)
    return {name: float(count) for name, count in ray.cluster_resources().items() if name in ("CPU", "GPU")}


def refusal(error: BaseException) -> dict[str, Any]:
    """The line that says why there is no cluster; `unauthenticated` where waiting for it is of no use.

    Ray's own error of that kind comes as a part of another one's text.
    """
    cause: BaseException | None = error
    while cause is not None:
        if "AuthenticationError" in f"{type(cause).__name__}: {cause}":
            return {"refused": "the token is not the cluster's", "unauthenticated": True}
        cause = cause.__cause__ or cause.__context__
    return {"refused": (str(error).strip().splitlines() or [type(error).__name__])[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--options", required=True, help="fields of RayOptions as JSON")
    given = parser.parse_args()
    options = RayOptions(**json.loads(given.options))
    reports, pipe = take_pipes()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    reporter = Reporter(reports)
    try:
        found = connect(options.address)
        bridge = Bridge(reporter, options, given.trainer)
    except Exception as error:  # whatever Ray raises is why there is no cluster
        log.exception("no cluster")
        reporter.send(refusal(error))
        leave(EXIT_REFUSED)
    reporter.send({"cluster": found})
    asyncio.run(serve(bridge, pipe))
    import ray

    ray.shutdown()
    leave(0)


if __name__ == "__main__":
    main()
