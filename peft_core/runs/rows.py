"""Rows of the store as records, and what a comparison's state and progress are, given its runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from peft_core.records import ComparisonRow, ComparisonSpec, MethodSpec, RunResult, RunRow, RunState

NEXT: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED, RunState.INTERRUPTED}),
    RunState.RUNNING: frozenset({RunState.STOPPING, RunState.FINISHED, RunState.FAILED, RunState.INTERRUPTED}),
    RunState.STOPPING: frozenset(
        {RunState.CANCELLED, RunState.FINISHED, RunState.FAILED, RunState.INTERRUPTED},
    ),
    RunState.INTERRUPTED: frozenset({RunState.QUEUED}),
    RunState.CANCELLED: frozenset({RunState.QUEUED}),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.FINISHED: frozenset(),
}
"""Which state may follow which. The store takes no other step."""

RESUMABLE = frozenset(state for state, following in NEXT.items() if RunState.QUEUED in following)
LIVE = frozenset({RunState.RUNNING, RunState.STOPPING})
UNFINISHED = frozenset(state for state in RunState if not state.ended)


def run_row(row: sqlite3.Row) -> RunRow:
    return RunRow(
        run=row["run"],
        label=row["label"],
        method=MethodSpec.model_validate_json(row["method"]),
        config=json.loads(row["config"]),
        seed=row["seed"],
        state=RunState(row["state"]),
        error=row["error"],
        step=row["step"],
        total_steps=row["total_steps"],
        result=RunResult.model_validate_json(row["result"]) if row["result"] else None,
    )


def comparison_row(row: sqlite3.Row, runs: Iterable[tuple[RunState, int, int | None]]) -> ComparisonRow:
    """`runs`: state, step and total steps of each."""
    spec = ComparisonSpec.model_validate_json(row["spec"])
    figures = list(runs)
    return ComparisonRow(
        id=row["id"],
        created=row["created"],
        number=row["number"],
        spec=spec,
        state=summed_up([state for state, _, _ in figures], claimed=bool(row["claimed"])),
        plan=json.loads(row["plan"]),
        environment=json.loads(row["environment"]),
        baseline_score=row["baseline_score"],
        metric=row["metric"],
        message=row["message"],
        progress=progress(spec, figures),
    )


def summed_up(states: Sequence[RunState], *, claimed: bool) -> RunState:
    """One state for a comparison: what still goes on, else the worst end. claimed: a supervisor works on it now."""
    open_states = [state for state in states if not state.ended]
    if open_states:
        if all(state is RunState.STOPPING for state in open_states):
            return RunState.STOPPING
        return RunState.RUNNING if claimed or RunState.RUNNING in open_states else RunState.QUEUED
    for state in (RunState.INTERRUPTED, RunState.FAILED, RunState.CANCELLED):
        if state in states:
            return state
    return RunState.FINISHED


def planned_steps(spec: ComparisonSpec, total_steps: int | None) -> int | None:
    """Steps of a run: as reported, else from the settings where they tell."""
    if total_steps is not None:
        return total_steps
    return spec.training.total_steps(0) if spec.training.epochs is None else None


def progress(spec: ComparisonSpec, runs: Sequence[tuple[RunState, int, int | None]]) -> float:
    """Share of the work that is done, 0 to 1. A run that ended needs no more work, unless it was interrupted."""
    shares = []
    for state, step, total_steps in runs:
        total = planned_steps(spec, total_steps)
        if state.ended and state is not RunState.INTERRUPTED:
            shares.append(1.0)
        else:
            shares.append(min(1.0, step / total) if total else 0.0)
    return sum(shares) / len(shares) if shares else 0.0
