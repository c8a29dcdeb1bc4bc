"""The embedded tasks. A task is a file of this folder, named after its id; a leading underscore hides a file."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from peft_core.records import InputError
from peft_core.tasks._contract import Rows, Split, Task, TaskInfo

__all__ = ["Rows", "Split", "Task", "TaskInfo", "get_task", "get_tasks", "list_tasks", "task_ids"]


@cache
def task_ids() -> tuple[str, ...]:
    """Ids of all embedded tasks, in alphabetical order."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def get_task(task: str) -> Task:
    """The task of an id; a ValueError of one sentence where there is none."""
    if task not in task_ids():
        raise InputError("task", task, f"it must be one of {', '.join(task_ids())}")
    found: Task = importlib.import_module(f"peft_core.tasks.{task}").TASK
    return found


def get_tasks(tasks: str) -> tuple[Task, ...]:
    """The tasks of ``a`` or ``a+b+c``, to be trained together.

    Raises:
        InputError: no such task, one named twice, or tasks that cannot share a model's run.
    """
    names = [tasks] if tasks in task_ids() else [name.strip() for name in tasks.split("+")]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError("task", tasks, f"{doubled!r} must be named once")
    found = tuple(get_task(name) for name in names)
    headless = next((task.info.id for task in found if task.info.problem in ("span", "generation")), None)
    if len(found) > 1 and headless is not None:
        raise InputError("task", tasks, f"only tasks of classes or numbers train together, and {headless} is not one")
    return found


def list_tasks() -> list[TaskInfo]:
    """What every embedded task says of itself, in the order of `task_ids`."""
    return [get_task(task).info for task in task_ids()]
