"""``compare --from RUN``: what a run was trained with as values of a comparison, where nothing else is said."""

from __future__ import annotations

from typing import Any

from peft_core.records import START, InputError, MethodSpec
from peft_core.runs import stored_view
from peft_core.runs.adopt import check_task
from peft_core.runs.begun import started_from
from peft_core.runs.folders import comparison_of


def with_start(run: str, values: dict[str, Any], training: dict[str, Any]) -> None:
    """Puts the run's method first, to begin with what it has learned, and fills in model, task, rows and seed.

    Args:
        values: fields of a comparison.
        training: fields of its training settings.

    Raises:
        InputError: no such run, or one that was imported without a task that is known here.
    """
    try:
        row = next((row for row in stored_view(comparison_of(run)[0]).runs if row.run == run), None)
    except InputError as error:
        raise InputError(START, run, error.allowed) from None
    if row is None:
        raise InputError(START, run, "it must be the id of a finished run")
    method = MethodSpec(id=row.method.id, options={START: run})
    view, _ = started_from(method, stored_view)
    spec, recorded = view.comparison.spec, view.comparison.environment.get("model") or {}
    if "task" not in values:
        check_task(spec)
        values["task"] = spec.task
        for name in ("task_options", "train_rows", "eval_rows", "data_seed"):
            values.setdefault(name, getattr(spec, name))
    commit = recorded.get("commit")
    values.setdefault("model", f"{recorded['id']}@{commit}" if commit and "@" not in recorded["id"] else spec.model)
    values.setdefault("seeds", [row.seed])
    training.setdefault("max_length", spec.training.max_length)
    values["methods"] = [method, *values.get("methods", [])]
