"""``sweep``: a grid of trials, scored on validation rows; every finished one is kept in the file."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from peft_core.commands._executor import check_options, executor_of
from peft_core.commands._output import messages, print_json, print_table
from peft_core.records import ComparisonSpec, InputError, SweepSpec, Trial, checked, parse_scalar
from peft_core.report.choice import choices

WHAT = (
    "scores of the first metric on validation rows, which are no training rows and no evaluation rows; choices: the"
    " best mean over the seeds; overall: the best mean over the tasks of (score - baseline) / (1 - baseline)"
)


def sweep(options: argparse.Namespace) -> int:
    """Trains what the file lacks and chooses. 0: done; 1: a worker ended early, or a method has no choice."""
    check_options(options)
    spec, jobs = read_sweep(Path(options.spec)), _jobs(options.jobs)
    out = Path(options.out) if options.out else Path(options.spec).with_suffix(".json")
    if out.is_dir():
        raise InputError("out", str(out), "it must be a file, not a folder")
    lock = FileLock(f"{out}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("out", str(out), "another sweep is writing it") from None
    except OSError as error:
        raise InputError("out", str(out), f"it must be a file that can be written ({error.strerror})") from None
    try:
        return _swept(options, spec, out, jobs)
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _swept(options: argparse.Namespace, spec: SweepSpec, out: Path, jobs: int | None) -> int:
    from peft_core.runs.ledger import Ledger
    from peft_core.runs.ray import RayExecutor
    from peft_core.runs.sweep import TRAINER, grid, work

    cells, absences = grid(spec)
    rows = {(cell.spec.model, cell.spec.task): _rows(cell.spec) for cell in cells}

    def document(trials: Sequence[Trial]) -> dict[str, Any]:
        return {
            "command": f"python -m peft_core sweep {_shown(options.spec)} --out {_shown(out)}",
            "what": WHAT,
            "spec": spec.model_dump(mode="json"),
            "rows": list(rows.values()),
            "complete": len(trials) == len(cells),
            "absent": [absence.model_dump() for absence in absences],
            **choices(spec, trials, absences),
        }

    ledger = Ledger(out, [cell.key for cell in cells], document)
    if options.retry_failed:
        ledger.forget_failed()
    folder = out.absolute().with_name(f"{out.name}.work")
    with closing(executor_of(options, folder, TRAINER)) as executor, _Bar(len(cells), len(ledger.trials)) as bar:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError("out", str(out), f"{folder.name} beside it must be a folder ({error.strerror})") from None
        jobs = jobs or (executor.slots() if isinstance(executor, RayExecutor) else _workers(spec))
        reasons = work(cells, ledger, executor, jobs, folder, bar.told, bar.said)
    if len(ledger.trials) == len(cells):
        shutil.rmtree(folder, ignore_errors=True)
    for reason in reasons:
        messages.print(f"{reason}; the same command goes on from here.", style="red", markup=False)
    whole = ledger.document()
    _show(whole, as_json=options.json)
    return 1 if reasons or any(row["learning_rate"] is None for row in whole["choices"]) else 0


def _rows(spec: ComparisonSpec) -> dict[str, Any]:
    """What a task's trials train on; validation rows with the content of a training row are left out of these."""
    return {
        "model": spec.model,
        "task": spec.task,
        "data_seed": spec.data_seed,
        "train_rows": spec.train_rows,
        "validation_rows": spec.eval_rows,
    }


def _shown(path: str | Path) -> str:
    """A path as a command shows it; of one that only this machine has, the name."""
    return Path(path).name if Path(path).is_absolute() else str(path)


def read_sweep(path: Path) -> SweepSpec:
    """The sweep that a file describes.

    Raises:
        InputError: a file that cannot be read, or a value that does not fit, named by its field.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("spec", str(path), f"it cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError("spec", str(path), "it must be a YAML file with the fields of a sweep") from None
    if not isinstance(values, dict):
        raise InputError("spec", str(path), "it must hold fields such as tasks, methods and learning_rates")
    return checked(SweepSpec, values)


def _jobs(text: str | None) -> int | None:
    if text is None:
        return None
    jobs = parse_scalar(text)
    if not isinstance(jobs, int) or isinstance(jobs, bool) or not 1 <= jobs <= 256:
        raise InputError("jobs", text, "it must be a whole number of workers from 1 to 256")
    return jobs


def _workers(spec: SweepSpec) -> int:
    """As many as cores where every model is small enough for one thread and no accelerator is shared, else one."""
    from peft_core.backbones import model_info
    from peft_core.runs.machine import usable_cores
    from peft_core.training.environment import pick_device
    from peft_core.training.plan import threads_for

    if pick_device(spec.training.device).type != "cpu":
        return 1
    models = {spec.model_of(task) for task in spec.tasks}
    return usable_cores() if all(threads_for(model_info(model).parameters) == 1 for model in models) else 1


class _Bar:
    """How far the sweep is, on standard error."""

    def __init__(self, total: int, done: int) -> None:
        columns = (
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(*columns, console=messages)
        self._bar = self._progress.add_task("", total=total, completed=done)
        self._said: str | None = None

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def said(self, message: str | None) -> None:
        """What a worker waits for, or why it began again; on a line of its own, once."""
        if message and message != self._said:
            self._progress.console.print(message, markup=False)
        self._said = message

    def told(self, trial: Trial) -> None:
        score = "failed" if trial.score is None else f"{trial.score:.3f}"
        said = escape(f"{trial.task}: {trial.setting}: {score}")
        self._progress.update(self._bar, advance=1, description=said)


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    columns = ("method", "options", "learning_rate", "score", "std", "trials", "failed", "edge")
    print_table(("task", "model", *columns), map(_readable, document["choices"]))
    over_all = ("method", "options", "learning_rate", "normalised_score", "trials", "failed", "edge", "said")
    print_table(over_all, map(_readable, document["overall"]))


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"options": ", ".join(f"{name}={value}" for name, value in row["options"].items())}
