"""The process that answers for the page's Try it tab: `python -m peft_core.commands._answering`.

Standard input: one JSON line a command, `{"number": n, "kind": ..., "comparison": id, "runs": [...], "task": id}`;
standard output: one line an answer with the same number, `answer` or `error` in it, and before a table's lines with its
`progress`. Kinds: `describe`, `ask` with a `visitor` and an `input`, `table`. Of a visitor's questions that wait only
the latest is answered, the others get `late`; a table is made between questions, so that it keeps nobody waiting. The
process ends with its standard input, or after `IDLE` seconds without a command: the models are in no one's way then.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_core.records import InputError
from peft_core.runs import home
from peft_core.runs.confinement import Confinement
from peft_core.runs.folders import comparison_folder
from peft_core.runs.logs import configure_as_told
from peft_core.runs.reader import Reader
from peft_core.runs.worker import PARENT_GONE, Reporter, leave, take_pipes

if TYPE_CHECKING:
    from peft_core.export.finished import FinishedRun
    from peft_core.export.predicting import Predictors
    from peft_core.export.trying import Disagreements

log = logging.getLogger(__name__)
IDLE = 300.0
MOST_RUNS = 32
NO_EVENTS = 2**62
Command = dict[str, Any]
Send = Callable[[Command], None]


class Desk:
    """What waits to be answered. One step at a time, questions before tables."""

    def __init__(self, folder: Path, predictors: Predictors, send: Send) -> None:
        self._folder, self._predictors, self._send = folder, predictors, send
        self._questions: OrderedDict[str, Command] = OrderedDict()
        self._tables: deque[Command] = deque()
        self._begun: dict[int, Disagreements] = {}

    @property
    def busy(self) -> bool:
        return bool(self._questions or self._tables)

    def take(self, command: Command) -> None:
        """Put a command in its place; an earlier question of its visitor is late now."""
        if command["kind"] == "table":
            self._tables.append(command)
            return
        key = f"{command['kind']} {command.get('visitor') or command['number']}"
        late = self._questions.pop(key, None)
        if late is not None:
            self._send({"number": late["number"], "answer": {"late": True}})
        self._questions[key] = command

    def step(self) -> None:
        """Answer a question, else go on with a table."""
        if self._questions:
            _, command = self._questions.popitem(last=False)
            self._guard(command, lambda: self._answered(command))
            return
        command = self._tables[0]
        if not self._guard(command, lambda: self._table_step(command)):
            self._tables.popleft()
            self._begun.pop(command["number"], None)

    def _guard(self, command: Command, work: Callable[[], bool]) -> bool:
        """The work's result; False, with the reason sent, where it failed."""
        try:
            return work()
        except InputError as error:
            self._send({"number": command["number"], "error": {"field": error.field, "message": str(error)}})
        except Exception:  # a model of anybody's may fail in any way; the page must hear of it and the process go on
            log.exception("a %s of %s failed", command["kind"], command["comparison"])
            message = "The models could not answer; the server's log says why."
            self._send({"number": command["number"], "error": {"field": "", "message": message}})
        return False

    def _answered(self, command: Command) -> bool:
        from peft_core.export.trying import answered, described, tasks_of

        runs = self._runs(command)
        tasks = tasks_of(runs[0])
        if command["kind"] == "describe":
            task = command.get("task") or tasks[0]
            found: Any = {"tasks": tasks, **described(self._predictors, runs[0], task)}
        else:
            entry = self._entry(command, runs[0])
            found = {"answers": answered(self._predictors, runs, command.get("task") or tasks[0], entry)}
        self._send({"number": command["number"], "answer": found})
        return True

    def _table_step(self, command: Command) -> bool:
        from peft_core.export.trying import Disagreements, tasks_of

        number = command["number"]
        if number not in self._begun:
            runs = self._runs(command)
            self._begun[number] = Disagreements(self._predictors, runs, command.get("task") or tasks_of(runs[0])[0])
        table = self._begun[number]
        if table.step():
            self._send({"number": number, "progress": table.progress})
            return True
        self._send({"number": number, "answer": table.table()})
        return False

    def _runs(self, command: Command) -> list[FinishedRun]:
        from peft_core.export.finished import FinishedRun

        if not 0 < len(command["runs"]) <= MOST_RUNS:
            raise InputError("runs", len(command["runs"]), f"1 to {MOST_RUNS} can be asked at once")
        comparison = command["comparison"]
        view = Reader(self._folder / "store.sqlite").view(comparison, NO_EVENTS)
        folder = comparison_folder(self._folder, comparison)
        return [FinishedRun.of(view, run, folder / run / "adapter") for run in command["runs"]]

    def _entry(self, command: Command, run: FinishedRun) -> dict[str, Any]:
        """The input by role; an image comes as base64 and is never a path."""
        from peft_core.export.trying import scanned
        from peft_core.training.data import chosen_tasks

        entry = dict(command["input"])
        if "image" not in entry:
            return entry
        try:
            entry["image"] = base64.b64decode(entry["image"], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise InputError("image", "the upload", "it is no image") from None
        if command.get("drawn"):
            tasks = chosen_tasks(run.view.comparison.spec)
            side = next((getattr(task, "scan", None) for task, _ in tasks), None)
            entry["image"] = scanned(entry["image"], side) if side else entry["image"]
        return entry


def read_commands(pipe: int, inbox: queue.SimpleQueue[Command]) -> None:
    """In a thread: the parent's lines into the inbox, until the parent is gone."""
    with os.fdopen(pipe, "rb") as lines:
        for line in lines:
            inbox.put(json.loads(line))
    leave(PARENT_GONE)


def serve(inbox: queue.SimpleQueue[Command], desk: Desk, idle: float = IDLE) -> None:
    """Answer until nothing was asked for some seconds."""
    while True:
        try:
            while True:
                desk.take(inbox.get(block=not desk.busy, timeout=idle))
        except queue.Empty:
            if not desk.busy:
                return
        desk.step()


def main() -> None:
    replies, pipe = take_pipes()
    configure_as_told()
    Confinement.from_environment().apply()
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=read_commands, args=(pipe, inbox), name="commands", daemon=True).start()
    from peft_core.export.predicting import Predictors
    from peft_core.training.environment import pick_device

    # One for the questions, one for the table between them.
    predictors = Predictors(backbones=2, runs=MOST_RUNS, device=str(pick_device("auto")))
    serve(inbox, Desk(home(), predictors, Reporter(replies).send))
    leave(0)


if __name__ == "__main__":
    main()
