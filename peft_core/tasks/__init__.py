"""Tasks: embedded ones, benchmarks, and data of your own.

An embedded task is a file of this folder, named after its id; a leading underscore hides a file. `_resolve` finds the
others.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peft_core.records import InputError
from peft_core.tasks._columns import ROLES
from peft_core.tasks._contract import Rows, Split, Task, TaskInfo
from peft_core.tasks._together import Chosen, together

if TYPE_CHECKING:
    from peft_core.tasks._presets import Preset
    from peft_core.tasks._preview import Preview

__all__ = [
    "ROLES",
    "Rows",
    "Split",
    "Task",
    "TaskInfo",
    "describe_options",
    "get_task",
    "get_tasks",
    "list_benchmarks",
    "list_tasks",
    "presets",
    "preview",
    "task_ids",
    "task_origin",
]


@cache
def task_ids() -> tuple[str, ...]:
    """Ids of all embedded tasks, in alphabetical order."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def get_task(task: str, options: Mapping[str, Any] | None = None) -> Task:
    """The task of an id, a benchmark's id, a path or ``hub:owner/name``; an InputError where there is none.

    options: `info` is for them, where it depends on them (the columns of a table, a benchmark's protocol).
    """
    if task not in task_ids():
        from peft_core.tasks._resolve import resolved

        if other := resolved(task, options or {}):
            return other
        raise InputError("task", task, f"it must be one of {', '.join(task_ids())}, a benchmark's id or a file")
    found: Task = importlib.import_module(f"peft_core.tasks.{task}").TASK
    return found


def get_tasks(tasks: str, options: Mapping[str, Any] | None = None) -> Chosen:
    """The tasks of ``a``, or of ``a+b+c`` to be trained together, each with its own of the options.

    Raises:
        InputError: no such task, one named twice, an option without its task, or tasks that cannot share a run.
    """
    return together(tasks, options or {}, get_task)


def list_tasks() -> list[TaskInfo]:
    """What every embedded task says of itself, in the order of `task_ids`."""
    return [get_task(task).info for task in task_ids()]


def list_benchmarks() -> list[tuple[TaskInfo, bool]]:
    """What every benchmark says of itself, and whether its rows are at hand (RANKLAB_DATA, or the cache)."""
    from peft_core.tasks._benchmarks import list_benchmarks as listed

    return listed()


def preview(task: str, options: Mapping[str, Any] | None = None) -> Preview:
    """What is in a table, a Hub data set or a set of images; guesses and problems included, nothing raised."""
    from peft_core.tasks._preview import preview as previewed

    return previewed(task, options)


def presets(task: str) -> list[Preset]:
    """The papers' settings for a benchmark, method by method; empty for any other task."""
    from peft_core.tasks._presets import presets as listed

    return listed(task)


def describe_options(info: TaskInfo) -> list[dict[str, Any]]:
    """name, type, default, choices and help of the options of a benchmark or of own data; empty for embedded tasks."""
    from peft_core.tasks._options import described_options

    return described_options(info.id, info.options)


def task_origin(task: str) -> Literal["embedded", "benchmark", "hub", "local"]:
    """Where a task comes from, told by its id alone: no file is looked at."""
    if task in task_ids():
        return "embedded"
    from peft_core.tasks._resolve import origin_of

    return origin_of(task)
