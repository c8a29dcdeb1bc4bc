"""A run that was not trained here: its comparison, adapter and figures put into the store as finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft_core.records import ComparisonSpec, Event, InputError, RunResult, RunState, StateRecord, run_specs
from peft_core.runs.folders import comparison_folder
from peft_core.runs.owners import Ownership
from peft_core.runs.store import Store


def check_task(spec: ComparisonSpec) -> None:
    """Refuses a comparison whose task is only the name that an imported adapter came with: InputError."""
    from peft_core.training.data import chosen_tasks

    try:
        chosen_tasks(spec)
    except InputError:
        allowed = "an imported adapter came with this name alone; name a task with --task of import or compare --from"
        raise InputError("task", spec.task, allowed) from None


def adopt(
    home: Path,
    spec: ComparisonSpec,
    facts: Mapping[str, Any],
    config: Mapping[str, Any],
    result: RunResult,
    records: Callable[[str], Sequence[Event]],
    adapter: Path,
) -> str:
    """Stores a finished run; no server's lock is taken.

    Args:
        spec: of one method and one seed.
        facts: of the comparison: environment, plan, metric, baseline_score.
        config: every option of the method as it ran.
        records: from the run's id to what is known of it: its ranks, its scores.
        adapter: a folder, which is copied.

    Returns:
        The run's id.
    """
    ownership = Ownership(home, server=False)
    try:
        store = Store(home / "store.sqlite")
        try:
            comparison = store.add(spec, ownership.name)
            run = run_specs(comparison, spec)[0].run
            folder = comparison_folder(home, comparison)
            try:
                shutil.copytree(adapter, folder / run / "adapter")
            except BaseException:
                store.request_stop([run])
                store.delete(comparison)
                shutil.rmtree(folder, ignore_errors=True)
                raise
            step = result.selected_step
            states = [
                StateRecord(run=run, step=0, state=RunState.RUNNING),
                *records(run),
                StateRecord(run=run, step=step, state=RunState.FINISHED, result=result),
            ]
            notices: list[dict[str, Any]] = [dict(facts), {"run": run, "config": dict(config), "total_steps": step}]
            reports = [{"notice": notice} for notice in notices]
            store.apply(comparison, reports + [{"event": state.model_dump(mode="json")} for state in states])
            return run
        finally:
            store.close()
    finally:
        ownership.close()
