"""A sweep at work: its cells are dealt to workers, and every finished one is in the file before the next is counted.

A cell's key is a digest of everything that decides its outcome: model, task and its options, rows, training settings,
the method with every option filled in, both seeds. A changed setting is another cell; trials of cells that the sweep
does not have (any more) are kept aside in its file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from peft_core.methods import get_method, resolve
from peft_core.records import (
    Absence,
    ComparisonSpec,
    InputError,
    MethodSpec,
    RunState,
    SweepSpec,
    SweepTask,
    Trial,
    run_specs,
)
from peft_core.runs.executors import Ending, Executor, Worker
from peft_core.runs.job import Job, Report
from peft_core.runs.ledger import Ledger
from peft_core.runs.limits import Limits
from peft_core.training.held_back import check_held_back

log = logging.getLogger(__name__)
TRAINER = "peft_core.training.held_back:train_on_held_back"
LISTEN_SECONDS, BEAT_SECONDS = 0.1, Limits.beat
"""How long all workers together are waited for, one after another; one without a sign of life for so long is ended."""
JOB_PREFIX = "job-"
"""Of the folders that workers write to, in the sweep's."""
CELLS_OF_A_JOB = 30
"""Cells that a worker trains at most, or those of one contender: starting it costs little, and all end together."""


@dataclass(frozen=True)
class Cell:
    """One trial to be: a setting of a contender on a task under a seed. spec: the comparison it is a run of."""

    key: str
    method: str
    setting: MethodSpec
    seed: int
    spec: ComparisonSpec

    @property
    def group(self) -> tuple[str, str, int]:
        return self.spec.model, self.spec.task, self.seed


def grid(spec: SweepSpec) -> tuple[list[Cell], list[Absence]]:
    """The cells, task by task, seed by seed, method by method; and the methods without a place in a task's model.

    Raises:
        InputError: a setting that cannot run, or a method that has a place in no task's model.
    """
    cells: list[Cell] = []
    absences: list[Absence] = []
    for task in spec.tasks:
        placed = list(_placed(spec, task, absences))
        for seed in spec.seeds:
            for method, settings, checked in placed:
                cells += [_cell(method, setting, seed, checked) for setting in settings]
    for entry in spec.methods:
        reasons = [absence.reason for absence in absences if absence.method == str(entry.method)]
        if len(reasons) == len(spec.tasks):
            raise InputError("methods", str(entry.method), f"it has a place in no task's model ({reasons[0]})")
    return cells, absences


def _placed(
    spec: SweepSpec, task: SweepTask, absences: list[Absence]
) -> Iterator[tuple[str, tuple[MethodSpec, ...], ComparisonSpec]]:
    """The contenders that have a place on a task, with their settings and a checked specification."""
    for entry in spec.methods:
        get_method(entry.method.id)
        settings = spec.settings(entry)
        try:
            lowest = tuple(setting for setting in settings if setting.options["learning_rate"] == spec.rates(entry)[0])
            yield str(entry.method), settings, check_held_back(_comparison(spec, task, lowest))
        except InputError as error:
            if error.field != "method":
                raise
            model = spec.model_of(task)
            absences.append(Absence(model=model, task=task.task, method=str(entry.method), reason=error.allowed))


def _comparison(spec: SweepSpec, task: SweepTask, settings: tuple[MethodSpec, ...]) -> ComparisonSpec:
    """Settings on a task; `eval_rows` counts the validation rows. Scored at the end alone, unless the best is kept."""
    training = spec.training
    if training.selection == "last":
        training = training.model_copy(update={"eval_every": 1_000_000})
    return ComparisonSpec(
        model=spec.model_of(task),
        task=task.task,
        task_options=task.task_options,
        methods=settings,
        seeds=spec.seeds,
        data_seed=spec.data_seed,
        train_rows=task.train_rows if task.train_rows is not None else spec.train_rows,
        eval_rows=task.validation_rows if task.validation_rows is not None else spec.validation_rows,
        training=training,
    )


def _cell(method: str, setting: MethodSpec, seed: int, spec: ComparisonSpec) -> Cell:
    alone = spec.model_copy(update={"methods": (setting,), "seeds": (seed,)})
    decides = alone.model_dump(mode="json", exclude={"methods", "plan"})
    decides |= {"method": method, "setting": str(setting), "config": resolve(setting).model_dump(mode="json")}
    text = json.dumps(decides, sort_keys=True, allow_nan=False)
    return Cell(hashlib.sha256(text.encode()).hexdigest()[:24], method, setting, seed, alone)


@dataclass
class _Post:
    """A worker with its cells by run id, and what it has said of itself."""

    worker: Worker
    folder: Path
    cells: Mapping[str, Cell]
    left: set[str]
    facts: dict[str, Any] = field(default_factory=dict)


def work(
    cells: Sequence[Cell],
    ledger: Ledger,
    executor: Executor,
    jobs: int,
    folder: Path,
    told: Callable[[Trial], None],
    said: Callable[[str | None], None] = lambda message: None,
) -> list[str]:
    """Trains what the ledger lacks, with up to `jobs` workers at once.

    Args:
        folder: for what workers write while they train. What it holds of a cell is removed with its trial; of one that
            was begun it is what the next call goes on from.
        told: called with every finished trial, once it is in the file.
        said: called with what a worker says of itself: a download, what it waits for on a cluster, what was lost there.

    Returns:
        why workers ended before their time; their unfinished cells are left for the next call.
    """
    for stale in folder.glob(f"{JOB_PREFIX}*"):
        shutil.rmtree(stale, ignore_errors=True)
    done = {trial.key for trial in ledger.trials}
    dealer = Dealer(dealt(cell for cell in cells if cell.key not in done))
    posts: list[_Post] = []
    reasons: list[str] = []
    try:
        while dealer.waiting or posts:
            while dealer.waiting and len(posts) < jobs:
                posts.append(_begin(dealer.take(), executor, folder))
                if dealer.waiting:
                    executor.warm()
            for post in list(posts):
                if (ending := _listen(post, ledger, told, said, LISTEN_SECONDS / len(posts))) is not None:
                    posts.remove(post)
                    shutil.rmtree(post.folder, ignore_errors=True)
                    left = [cell for run, cell in post.cells.items() if run in post.left]
                    if left and not dealer.give_back(left, ending.how == "killed"):
                        reasons.append(ending.reason or f"a worker ended ({ending.how}) before its trials did")
    finally:
        for post in posts:
            post.worker.kill()
        executor.close()
        for post in posts:
            shutil.rmtree(post.folder, ignore_errors=True)
        ledger.write()
    return list(dict.fromkeys(reasons))


class Dealer:
    """Which cells train next, and what becomes of those that a worker left.

    Cells whose worker was ended from outside are dealt once more, before all others. What a worker did to itself would
    happen again: its cells are left for the next call.
    """

    def __init__(self, jobs: Iterable[list[Cell]]) -> None:
        self.waiting = deque(jobs)
        self._again: set[str] = set()

    def take(self) -> list[Cell]:
        """The cells of the next worker."""
        return self.waiting.popleft()

    def give_back(self, cells: list[Cell], from_outside: bool) -> bool:
        """Whether the cells that a worker left are dealt again."""
        keys = {cell.key for cell in cells}
        if not from_outside or keys & self._again:
            return False
        self._again |= keys
        self.waiting.appendleft(cells)
        return True


def dealt(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Jobs of one task and one seed each; the settings of a contender stay together."""
    jobs: list[list[Cell]] = []
    for _, group in groupby(cells, key=lambda cell: cell.group):
        job: list[Cell] = []
        for _, together in groupby(group, key=lambda cell: cell.method):
            new = list(together)
            if job and len(job) + len(new) > CELLS_OF_A_JOB:
                jobs.append(job)
                job = []
            job += new
        jobs.append(job)
    return jobs


def _begin(cells: Sequence[Cell], executor: Executor, folder: Path) -> _Post:
    own = Path(tempfile.mkdtemp(prefix=JOB_PREFIX, dir=folder))
    spec = cells[0].spec.model_copy(update={"methods": tuple(cell.setting for cell in cells)})
    runs = run_specs("sweep", spec)
    by_run = {run.run: cell for run, cell in zip(runs, cells, strict=True)}
    places = {run: place_of(cell.key) for run, cell in by_run.items()}
    for run, place in places.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        (own / run).symlink_to(Path("..") / place, target_is_directory=True)
    job = Job(
        comparison="sweep",
        spec=spec,
        runs=tuple(by_run),
        folder=own,
        resume=True,
        states_alone=True,
        places=places,
    )
    return _Post(executor.start(job), own, by_run, set(by_run))


def place_of(key: str) -> str:
    """Where the files of a cell that trains lie, in a sweep's folder as in the storage: whichever worker has it."""
    return f"cells/{key}"


def _listen(
    post: _Post,
    ledger: Ledger,
    told: Callable[[Trial], None],
    said: Callable[[str | None], None],
    seconds: float,
) -> Ending | None:
    """Takes a worker's reports, and waits for one for a while. None while it works, else how it ended."""
    ending = post.worker.ended()
    if ending is None and time.monotonic() - post.worker.inbox.last_sign > BEAT_SECONDS:
        post.worker.kill()
        ending = Ending("killed", f"the worker gave no sign of life for {BEAT_SECONDS:g} seconds")
    for report in post.worker.inbox.take(0.0 if ending else seconds):
        notice = report.get("notice", {})
        post.facts |= notice
        if "message" in notice:
            said(notice["message"])
        if "event" in report and (trial := _trial(report["event"], post, ledger)):
            post.left.discard(report["event"]["run"])
            ledger.add(trial)
            shutil.rmtree(post.folder.parent / place_of(trial.key), ignore_errors=True)
            told(trial)
    return ending


def _trial(event: Report, post: _Post, ledger: Ledger) -> Trial | None:
    """The trial that a change of state completes."""
    cell, metric = post.cells[event["run"]], post.facts.get("metric", "")
    state, result = RunState(event["state"]), event.get("result")
    if state not in (RunState.FINISHED, RunState.FAILED):
        return None
    rate = cell.setting.options["learning_rate"]
    assert isinstance(rate, float)
    return Trial(
        key=cell.key,
        model=cell.spec.model,
        task=cell.spec.task,
        method=cell.method,
        setting=cell.setting,
        learning_rate=rate,
        seed=cell.seed,
        metric=metric,
        score=result["score"].get(metric) if result else None,
        baseline_score=post.facts.get("baseline_score"),
        steps=event["step"],
        seconds=result["seconds"] if result else None,
        error=event.get("error"),
        environment=ledger.environment(post.facts["environment"]),
    )
