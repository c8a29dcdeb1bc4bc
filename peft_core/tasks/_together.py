"""One task, or several that are trained together: ``a+b+c``, whose options are written ``a.option``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft_core.records import InputError
from peft_core.tasks._contract import Task

Find = Callable[[str, Mapping[str, Any]], Task]
Chosen = tuple[tuple[Task, Mapping[str, Any]], ...]


def together(tasks: str, options: Mapping[str, Any], find: Find) -> Chosen:
    """The tasks, each with its own options.

    Raises:
        InputError: no such task, one named twice, an option without its task, or tasks that cannot share a run.
    """
    names = [tasks] if _is_one(tasks) else [name.strip() for name in tasks.split("+")]
    if len(names) == 1:
        return ((find(names[0], options), options),)
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError("task", tasks, f"{doubled!r} must be named once")
    for name, value in options.items():
        if not any(name.startswith(f"{task}.") for task in names):
            raise InputError(f"task_options.{name}", value, f"with several tasks it must be {names[0]}.<option>")
    chosen = tuple((find(name, own := _own(name, options)), own) for name in names)
    headless = next((task.info.id for task, _ in chosen if task.info.problem in ("span", "generation")), None)
    if headless is not None:
        raise InputError("task", tasks, f"only tasks of classes or numbers train together, and {headless} is not one")
    return chosen


def _is_one(tasks: str) -> bool:
    """Whether this is a name as it stands: a file's may have a plus sign."""
    try:
        return "+" not in tasks or Path(tasks).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _own(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{task}."
    return {name.removeprefix(start): value for name, value in options.items() if name.startswith(start)}
