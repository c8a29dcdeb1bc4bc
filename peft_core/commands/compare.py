"""``compare``: trains methods side by side in the terminal, from the store that the page uses too."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from peft_core.commands._executor import chosen
from peft_core.commands._output import messages, print_json
from peft_core.commands.data import task_options
from peft_core.commands.preset_options import with_presets
from peft_core.commands.start_options import with_start
from peft_core.records import (
    ComparisonSpec,
    InputError,
    MethodSpec,
    RunRow,
    RunState,
    TrainingConfig,
    View,
    checked,
    parse_scalar,
)
from peft_core.report import report_html, results_document
from peft_core.runs import Supervisor, example_spec, home, stored_view, with_learned_ranks, with_starts

_TRAINING = tuple(TrainingConfig.model_fields)
_SPEC = ("model", "task", "train_rows", "eval_rows", "data_seed", "plan")


def compare(options: argparse.Namespace) -> int:
    """Trains a comparison and writes its results."""
    from peft_core.training import check

    asked = read_spec(options)
    place = _place_of(options.reference, asked)
    spec = with_starts(with_learned_ranks(asked, stored_view), stored_view)
    check(spec)
    out = _folder(options.out)
    with Supervisor(home(), executor=chosen(options)) as supervisor:
        comparison = supervisor.submit(spec)
        return follow(supervisor, comparison, as_json=options.json, out=out, reference=str(spec.methods[place]))


def _place_of(reference: str | None, spec: ComparisonSpec) -> int:
    """Which of the methods, as they were given or as a lock made them, differences are to."""
    if reference is None:
        return 0
    wanted = str(MethodSpec.parse(reference))
    for methods in (spec.lock.asked if spec.lock else spec.methods, spec.methods):
        labels = [str(method) for method in methods]
        if wanted in labels:
            return labels.index(wanted)
    raise InputError("reference", reference, f"it must be one of {'; '.join(map(str, spec.methods))}")


def read_spec(options: argparse.Namespace) -> ComparisonSpec:
    """The comparison that a file or the options describe.

    Raises:
        InputError: a value that does not fit, named by its field.
    """
    values: dict[str, Any] = _from_file(Path(options.spec)) if options.spec else {}
    lock, lock_to = _asked_lock(options, values)
    training = dict(values.pop("training", {}) or {})
    for name in (*_SPEC, *_TRAINING):
        given = getattr(options, name, None)
        if given is not None:
            (training if name in _TRAINING else values)[name] = parse_scalar(given)
    for name in ("model", "task"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    if options.method:
        values["methods"] = [MethodSpec.parse(text) for text in options.method]
    if options.task_option:
        values["task_options"] = task_options(options.task_option)
    if options.seeds is not None:
        values["seeds"] = _first_seeds(options.seeds)
    if options.seed_list is not None:
        values["seeds"] = [parse_scalar(seed) for seed in options.seed_list.split(",")]
    if options.preset:
        with_presets(options.preset, values, training)
    if options.start:
        with_start(options.start, values, training)
    values.setdefault("methods", example_spec().methods)
    values["training"] = checked(TrainingConfig, training, prefix="training.")
    spec = checked(ComparisonSpec, values)
    if lock is None:
        return spec
    from peft_core.locks import lock_comparison

    return lock_comparison(spec, lock, lock_to)


def _asked_lock(options: argparse.Namespace, values: dict[str, Any]) -> tuple[str | None, str | None]:
    """The lock to solve, and its reference. A file may name one, or hold what one has made of its methods."""
    kind, to = values.pop("lock", None), values.pop("lock_to", None)
    if isinstance(kind, dict):
        if options.lock is not None or options.method or options.preset:
            raise InputError("lock", kind.get("kind"), "it belongs to the methods of the file; leave it out there")
        values["lock"], kind = kind, None
    kind = options.lock if options.lock is not None else kind
    to = options.lock_to if options.lock_to is not None else to
    if to is not None and kind is None:
        raise InputError("lock_to", to, "it needs a lock: parameters, rank or flops")
    return kind, to


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("spec", str(path), f"it cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InputError("spec", str(path), "it must be a YAML file with the fields of a comparison") from None
    if not isinstance(values, dict):
        raise InputError("spec", str(path), "it must hold fields such as model, task and methods")
    methods = values.get("methods", [])
    if not isinstance(methods, list):
        raise InputError("methods", methods, "it must be a list of methods written id:key=value,key=value")
    parsed = [MethodSpec.parse(method) if isinstance(method, str) else method for method in methods]
    return values | {"methods": parsed} if methods else values


def _first_seeds(text: str) -> list[int]:
    count = parse_scalar(text)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 100:
        raise InputError("seeds", text, "it must be a whole number of seeds from 1 to 100")
    return list(range(count))


def _folder(given: str | None) -> Path | None:
    if given is None:
        return None
    out = Path(given)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("out", given, f"it must be a folder that can be written ({error.strerror})") from None
    return out


def follow(
    supervisor: Supervisor, comparison: str, *, as_json: bool, out: Path | None, reference: str | None = None
) -> int:
    """Shows a comparison until it ends, then writes its results, differences to the reference. Ctrl-C cancels it.

    Returns: 0 all runs finished, 1 one failed or was interrupted, 130 cancelled.
    """
    stream = _JsonLines() if as_json else _Display()
    interrupted = False
    with stream:
        seq = 0
        while True:
            try:
                view = supervisor.view(comparison, after=seq)
                seq = view.seq
                stream.show(view)
                if view.comparison.state.ended:
                    break
                supervisor.wait(comparison, timeout=0.25)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                supervisor.cancel(comparison)
    whole = supervisor.view(comparison)
    if why := whole.comparison.plan.get("why"):
        messages.print(why, style="dim", markup=False)
    if out is not None:
        document = results_document(whole, reference)
        (out / "results.json").write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
        (out / "report.html").write_text(report_html(whole, reference), encoding="utf-8")
    return _status(whole)


def _status(view: View) -> int:
    states = {run.state for run in view.runs}
    for run in view.runs:
        if run.error:
            messages.print(f"{run.run} ({run.label}, seed {run.seed}): {run.error}", style="red", markup=False)
    if states & {RunState.FAILED, RunState.INTERRUPTED}:
        return 1
    return 130 if RunState.CANCELLED in states else 0


class _JsonLines:
    """Every event as one JSON line on standard output; what is said of a download goes to standard error."""

    def __init__(self) -> None:
        self._said: str | None = None

    def __enter__(self) -> _JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, view: View) -> None:
        message = view.comparison.message
        if message and message != self._said:
            messages.print(message, markup=False)
        self._said = message
        runs = {run.run: run for run in view.runs}
        for event in view.events:
            run = runs[event["run"]]
            about = {"event": event["event"], "run": run.run, "method": run.method.id, "label": run.label}
            print_json(about | {"seed": run.seed} | event)


class _Display:
    """Progress bars and a live table on standard error."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0%}"), TimeRemainingColumn()
        )
        self._bar = self._progress.add_task("starting", total=1.0)
        self._latest: dict[str, dict[str, Any]] = {}
        self._live = Live(console=messages, refresh_per_second=4)

    def __enter__(self) -> _Display:
        self._live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def show(self, view: View) -> None:
        for event in view.events:
            self._latest.setdefault(event["run"], {})[event["event"]] = event
        row = view.comparison
        text = f"{row.id}: {row.state.value}"
        if row.queue_place:
            text += f", place {row.queue_place} in the queue"
        if row.message:
            text += f": {escape(row.message)}"
        self._progress.update(self._bar, completed=row.progress, description=text)
        table = Table(box=None)
        for column in ("method", "seed", "state", "step", "loss", row.metric or "score", "mean rank", "parameters"):
            table.add_column(column)
        for run in view.runs:
            table.add_row(*self._cells(run, row.metric))
        grid = Table.grid()
        grid.add_row(table)
        grid.add_row(self._progress)
        self._live.update(grid)

    def _cells(self, run: RunRow, metric: str | None) -> list[str]:
        latest = self._latest.get(run.run, {})
        step, evaluation, rank = latest.get("step", {}), latest.get("eval", {}), latest.get("rank", {})
        layers = rank.get("layers", [])
        mean = sum(layer["numerical"] for layer in layers) / len(layers) if layers else None
        score = evaluation.get("scores", {}).get(metric)
        shown = (step.get("step"), step.get("loss"), score, mean, step.get("active_parameters"))
        return [run.label, str(run.seed), run.state.value, *(_figure(value) for value in shown)]


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
