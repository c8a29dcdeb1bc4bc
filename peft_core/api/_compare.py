"""`compare`: several methods and seeds on one model and task, as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunFailure, TrainingConfig, View, checked
from peft_core.report import report_html, results_document
from peft_core.runs import Supervisor, home


@dataclass(frozen=True)
class Results:
    """A comparison that has ended. `print(results)` shows a line a method: mean, deviation and interval over seeds."""

    view: View
    reference: str | None = None

    @property
    def id(self) -> str:
        """Of the comparison in the store: the page and the command line show it."""
        return self.view.comparison.id

    @property
    def runs(self) -> dict[tuple[str, int], str]:
        """Ids of its finished runs by (method as it was given, seed): for `predict`, `load` and `export`."""
        return {(row.label, row.seed): row.run for row in self.view.runs if row.result is not None}

    @property
    def document(self) -> dict[str, Any]:
        """Everything measured: what results.json holds."""
        return results_document(self.view, self.reference)

    @property
    def table(self) -> list[dict[str, Any]]:
        """One entry a method: label, n, mean, std, ci95 of the score, trainable parameters, mean rank of the update."""
        lines = []
        for entry in self.document["summary"]:
            results = [row.result for row in self.view.runs if row.label == entry["label"] and row.result is not None]
            ranks = [result.rank["numerical_mean"] for result in results if result.rank is not None]
            known = [rank for rank in ranks if rank is not None]
            lines.append(
                {
                    "method": entry["label"],
                    "metric": self.view.comparison.metric,
                    **{name: entry[name] for name in ("n", "mean", "std", "ci95")},
                    "trainable": results[0].trainable if results else None,
                    "rank": sum(known) / len(known) if known else None,
                }
            )
        return lines

    def save(self, folder: str | Path) -> Path:
        """Writes results.json and report.html, one file that opens offline."""
        to = Path(folder)
        to.mkdir(parents=True, exist_ok=True)
        (to / "results.json").write_text(json.dumps(self.document, indent=1, allow_nan=False), encoding="utf-8")
        (to / "report.html").write_text(report_html(self.view, self.reference), encoding="utf-8")
        return to

    def __str__(self) -> str:
        columns = ("method", "n", "mean", "std", "trainable", "rank")
        lines = [[name if name != "mean" else str(self.view.comparison.metric) for name in columns]]
        lines += [[_shown(entry[name]) for name in columns] for entry in self.table]
        widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                         for line in lines)  # fmt: skip


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def compare(
    model: str,
    task: str,
    methods: Sequence[str],
    *,
    seeds: int | Sequence[int] = 2,
    task_options: Mapping[str, Any] | None = None,
    train_rows: int | None = None,
    eval_rows: int | None = None,
    data_seed: int = 0,
    reference: str | None = None,
    folder: str | Path | None = None,
    plan: Literal["auto", "apart", "lockstep", "workers"] = "auto",
    executor: Literal["thread", "process"] = "thread",
    on_event: Callable[[dict[str, Any]], object] | None = None,
    **settings: Any,
) -> Results:
    """Trains every method with every seed on the same batches in the same order, and stores the runs.

    Args:
        model, task, task_options: as for `load`.
        methods: each ``id`` or ``id:key=value,...``; differences are to the first, or to `reference`.
        seeds: how many (0 to n - 1), or which.
        folder: of the store; None: the one that the page and the command line use (RANKLAB_HOME).
        plan: how they are executed; auto: as a short measurement says.
        executor: thread: in this process, which knows methods that were registered in it. process: in workers of their
            own, one a core where that is sooner.
        on_event: hears of every record, as `compare --json` prints them.
        settings: as for `train`.

    Raises:
        InputError: a value that does not fit. RunFailure: no run has finished.

    >>> import peft_core, tempfile
    >>> results = peft_core.compare(
    ...     "tiny-text", "sentiment", ["lora:rank=2", "capaboost_lora:rank=2,d=2"],
    ...     seeds=1, steps=2, train_rows=32, eval_rows=16, folder=tempfile.mkdtemp(),
    ... )
    >>> [(line["method"], line["n"], line["rank"]) for line in results.table]
    [('lora:rank=2', 1, 2.0), ('capaboost_lora:rank=2,d=2', 1, 4.0)]
    """
    parsed = tuple(MethodSpec.parse(method) for method in methods)
    spec = checked(
        ComparisonSpec,
        {
            "model": model,
            "task": task,
            "task_options": dict(task_options or {}),
            "methods": parsed,
            "seeds": _seeds(seeds),
            "train_rows": train_rows,
            "eval_rows": eval_rows,
            "data_seed": data_seed,
            "plan": plan,
            "training": checked(TrainingConfig, settings, prefix="training."),
        },
    )
    labels = [str(method) for method in spec.methods]
    wanted = str(MethodSpec.parse(reference)) if reference is not None else None
    if wanted is not None and wanted not in labels:
        raise InputError("reference", reference, f"it must be one of {'; '.join(labels)}")
    with Supervisor(Path(folder) if folder is not None else home(), executor=executor) as supervisor:
        name = supervisor.submit(spec)
        _follow(supervisor, name, on_event)
        view = supervisor.view(name)
    errors = [row.error for row in view.runs if row.error]
    if errors and not any(row.result for row in view.runs):
        raise RunFailure(errors[0])
    return Results(view, wanted)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        if isinstance(seeds, bool) or not 1 <= seeds <= 100:
            raise InputError("seeds", seeds, "it must be a whole number of seeds from 1 to 100")
        return tuple(range(seeds))
    return tuple(seeds)


def _follow(supervisor: Supervisor, name: str, on_event: Callable[[dict[str, Any]], object] | None) -> None:
    """Waits for its end; an interruption cancels it."""
    seq = 0
    try:
        while True:
            view = supervisor.view(name, after=seq)
            seq = view.seq
            for event in view.events if on_event is not None else ():
                on_event(event)  # type: ignore[misc]
            if view.comparison.state.ended:
                return
            supervisor.wait(name, timeout=0.1)
    except BaseException:
        supervisor.cancel(name)
        raise
