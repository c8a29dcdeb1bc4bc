"""Runs that begin with what a finished run has learned: a method's option `from=RUN`.

Before a comparison is stored the run's own options are filled in; then its adapter is kept beside the comparison, which
so needs the run no more.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from peft_core.records import START, ComparisonSpec, InputError, MethodSpec, RunRow, RunState, View, checked
from peft_core.runs.folders import comparison_folder, comparison_of
from peft_core.runs.learned import FindView


def with_starts(spec: ComparisonSpec, find: FindView) -> ComparisonSpec:
    """The comparison with the options of the runs that its methods begin with.

    Raises:
        InputError: a run that is unknown, has not finished, or is of another method, seed or model; an option that
            would make something else of what it has learned.
    """
    methods = tuple(start_of_method(method, find) for method in spec.methods)
    for method in methods:
        if method.start is not None:
            _check_same(method, spec, *started_from(method, find))
    if methods == spec.methods:
        return spec
    return checked(ComparisonSpec, {**dict(spec), "methods": methods})


def start_of_method(method: MethodSpec, find: FindView) -> MethodSpec:
    """The method with the options of the run that it begins with; itself where it begins with none."""
    if method.start is None:
        return method
    _, row = started_from(method, find)
    own = {name: value for name, value in row.method.options.items() if name != START}
    filled = MethodSpec(id=method.id, options={**own, **method.options})
    _check_options(filled, row)
    return filled


def started_from(method: MethodSpec, find: FindView) -> tuple[View, RunRow]:
    """The run that a method begins with, and its comparison."""
    field, run = f"{method.id}.{START}", method.start
    assert run is not None
    try:
        name, is_run = comparison_of(run)
        view = find(name) if is_run else None
    except InputError as error:
        raise InputError(field, run, error.allowed) from None
    row = next((row for row in view.runs if row.run == run), None) if view is not None else None
    if view is None or row is None or row.state != RunState.FINISHED or row.result is None:
        raise InputError(field, run, "it must be the id of a finished run")
    if row.method.id != method.id:
        raise InputError(field, run, f"it is a run of {row.method.id}, and training goes on with the same method")
    return view, row


def _check_options(method: MethodSpec, row: RunRow) -> None:
    from peft_core.methods import get_method, resolve  # brings torch, which nothing else here needs

    kind = get_method(method.id).Config
    before = checked(kind, row.config, prefix=f"{method.id}.").model_dump(mode="json")
    now = resolve(method).model_dump(mode="json")
    for name, value in before.items():
        if now[name] != value and name not in kind.anew:
            free = ", ".join(option for option in kind.anew if option in before)
            raise InputError(
                f"{method.id}.{name}", now[name], f"it must be {value}, as in {row.run}; others may be {free}"
            )


def _check_same(method: MethodSpec, spec: ComparisonSpec, view: View, row: RunRow) -> None:
    if spec.seeds != (row.seed,):
        allowed = f"it must be {row.seed} alone, the seed of {row.run}, whose masks and values are gone on with"
        raise InputError("seeds", ", ".join(map(str, spec.seeds)), allowed)
    recorded = view.comparison.environment.get("model") or {}
    known = {str(name).partition("@")[0] for name in (recorded.get("id"), view.comparison.spec.model) if name}
    if recorded.get("origin") != "local" and spec.model.partition("@")[0] not in known:
        raise InputError("model", spec.model, f"it must be {view.comparison.spec.model}, as in {row.run}")


def keep_starts(home: Path, comparison_id: str, spec: ComparisonSpec, find: FindView) -> None:
    """Keeps in the comparison's folder what its runs begin with, and of which weights it is.

    Raises:
        InputError: it is not on this disk any more.
    """
    from peft_core.training.begun import MODEL, STARTS

    for method in (method for method in spec.methods if method.start is not None):
        view, row = started_from(method, find)
        adapter = comparison_folder(home, view.comparison.id) / row.run / "adapter"
        kept = comparison_folder(home, comparison_id) / STARTS / row.run
        if not adapter.is_dir():
            raise InputError(f"{method.id}.{START}", row.run, "its adapter is not on this disk any more")
        shutil.copytree(adapter, kept, copy_function=_same_file, dirs_exist_ok=True)
        (kept / MODEL).write_text(json.dumps(view.comparison.environment.get("model") or {}), encoding="utf-8")


def _same_file(source: str, to: str) -> None:
    """A second name of a file that is never written to again; a copy where the file system has no such names."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
