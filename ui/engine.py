"""What the page needs of the engine's heavy rooms, imported behind the first paint."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from peft_core.records import LOCKS, BudgetLock, ComparisonSpec, MethodSpec, TrainingConfig
from peft_core.runs import example_spec
from ui.form import COMPARISON_FIELDS, fields_of, written

if TYPE_CHECKING:
    from peft_core.tasks import TaskInfo

log = logging.getLogger(__name__)


class Engine(Protocol):
    """The lists and checks behind the form."""

    def prepare(self) -> None:
        """Import what the other functions need."""
        ...

    def alone(self) -> AbstractContextManager[Any]:
        """Within it no other thread loads anything of the engine."""
        ...

    def catalogue(self) -> dict[str, Any]: ...

    def benchmarks(self) -> list[dict[str, Any]]:
        """The tasks that need rows from elsewhere."""
        ...

    def presets(self, task: str) -> list[dict[str, Any]]:
        """The papers' settings for a benchmark."""
        ...

    def preview(self, model: str, task: str, options: Mapping[str, Any], max_length: int | None) -> dict[str, Any]: ...

    def task_origin(self, task: str) -> str:
        """embedded, benchmark, hub or local; no file is looked at."""
        ...

    def resolve(self, spec: MethodSpec) -> BaseModel: ...

    def check(self, spec: ComparisonSpec) -> None: ...

    def budget(self, model: str, methods: Sequence[MethodSpec], tasks: int = 1) -> list[dict[str, Any]]: ...

    def lock(self, spec: ComparisonSpec, kind: str, to: str | None) -> ComparisonSpec:
        """The comparison under a budget lock."""
        ...

    def locked(
        self, model: str, methods: Sequence[MethodSpec], kind: str, to: str | None, tasks: int = 1
    ) -> tuple[Sequence[MethodSpec], BudgetLock]: ...


class LocalEngine:
    """The engine of this process. Its imports take seconds (torch), so they happen in `prepare`.

    One call at a time: transformers fills its modules lazily, and two threads that do so at once break each other.
    Rows are read outside of that lock, one table at a time, so that a long one stops nobody from starting.
    """

    def __init__(self) -> None:
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._catalogue: dict[str, Any] | None = None

    def alone(self) -> AbstractContextManager[Any]:
        return self._lock

    def prepare(self) -> None:
        with self._lock:
            self.catalogue()
            self.check(ComparisonSpec(methods=example_spec().methods))
            self.budget("tiny-text", example_spec().methods)

    def catalogue(self) -> dict[str, Any]:
        with self._lock:
            if self._catalogue is None:
                self._catalogue = _catalogue()
            return self._catalogue

    def benchmarks(self) -> list[dict[str, Any]]:
        with self._reading:
            from peft_core.tasks import list_benchmarks, presets

            return [
                _task(info) | {"at_hand": there, "presets": bool(presets(info.id))} for info, there in list_benchmarks()
            ]

    def presets(self, task: str) -> list[dict[str, Any]]:
        from peft_core.tasks import presets

        return [{"name": preset.name} | dataclasses.asdict(preset) for preset in presets(task)]

    def preview(self, model: str, task: str, options: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
        with self._reading:
            from peft_core.tasks import preview

            found = preview(task, options)
        with self._lock:
            from peft_core.training.preview import document, tokens

            return document(found) | {"tokens": tokens(found, model or None, task, options, max_length)}

    def task_origin(self, task: str) -> str:
        from peft_core.tasks import task_origin

        return task_origin(task)

    def resolve(self, spec: MethodSpec) -> BaseModel:
        with self._lock:
            from peft_core.methods import resolve

            return resolve(spec)

    def check(self, spec: ComparisonSpec) -> None:
        with self._lock:
            from peft_core.backbones import model_info

            model_info(spec.model)
        with self._reading:
            from peft_core.tasks import get_tasks

            for task, options in get_tasks(spec.task, spec.task_options):
                task.check(options)
        with self._lock:
            from peft_core.training import check

            check(spec)

    def budget(self, model: str, methods: Sequence[MethodSpec], tasks: int = 1) -> list[dict[str, Any]]:
        with self._lock:
            from peft_core.budget import budget

            return budget(model, methods, tasks=tasks)

    def lock(self, spec: ComparisonSpec, kind: str, to: str | None) -> ComparisonSpec:
        with self._lock:
            from peft_core.locks import lock_comparison

            return lock_comparison(spec, kind, to)

    def locked(
        self, model: str, methods: Sequence[MethodSpec], kind: str, to: str | None, tasks: int = 1
    ) -> tuple[Sequence[MethodSpec], BudgetLock]:
        with self._lock:
            from peft_core.locks import locked_methods

            return locked_methods(model, methods, kind, to, tasks)


def _catalogue() -> dict[str, Any]:
    from peft_core.backbones import list_models
    from peft_core.methods import list_methods
    from peft_core.tasks import list_tasks

    return {
        "methods": [
            {
                "id": method.id,
                "title": method.title,
                "family": method.family,
                "source": method.source,
                "fields": fields_of(method.Config),
            }
            for method in list_methods()
        ],
        "models": [
            {
                "id": model.id,
                "modality": model.modality,
                "problems": list(model.problems),
                "origin": model.origin,
                "at_hand": model.available,
            }
            for model in list_models()
        ],
        "tasks": [_task(task) for task in list_tasks()],
        "training": fields_of(TrainingConfig),
        "comparison": fields_of(ComparisonSpec, COMPARISON_FIELDS),
        "locks": [{"id": kind, "title": title} for kind, title in LOCKS.items()],
    }


def _task(task: TaskInfo) -> dict[str, Any]:
    from peft_core.tasks import describe_options

    plain = {"type": "str", "choices": None, "help": "an option of this task"}
    options = describe_options(task) or [
        {"name": name, "default": value, **plain} for name, value in task.options.items()
    ]
    return {
        "id": task.id,
        "title": task.title,
        "description": task.description,
        "modality": task.modality,
        "metric": task.metrics[0],
        "problem": task.problem,
        "joins": task.problem in ("classification", "regression"),
        "train_rows": task.train_rows,
        "eval_rows": task.eval_rows,
        "options": [{**option, "default": written(option["default"])} for option in options],
    }


class Warmup:
    """Runs `prepare` in a thread once the first page has been painted, or after a while without one."""

    def __init__(self, engine: Engine, patience: float = 6.0) -> None:
        self._engine, self._patience = engine, patience
        self._go = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warm-up", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def now(self) -> None:
        """The first page is painted: begin."""
        self._go.set()

    def _run(self) -> None:
        self._go.wait(self._patience)
        try:
            self._engine.prepare()
        except (ImportError, OSError, ValueError) as error:
            log.warning("the engine could not be loaded: %s", error)
