"""Runs of the store by their ids."""

from __future__ import annotations

from peft_core.export.finished import FinishedRun
from peft_core.records import InputError, RunState
from peft_core.runs import home, stored_view
from peft_core.runs.folders import comparison_folder, comparison_of


def finished_run(given: str) -> FinishedRun:
    """The run of an id; that of a comparison stands for its only finished run.

    Raises:
        InputError: there is none, it has not finished, or its adapter is gone.
    """
    comparison, is_run = comparison_of(given)
    view = stored_view(comparison)
    run = given
    if not is_run:
        finished = [row.run for row in view.runs if row.state == RunState.FINISHED]
        if len(finished) != 1:
            listed = f"it must be one of its finished runs: {', '.join(finished)}"
            raise InputError("id", given, listed if finished else "no run of it finished")
        run = finished[0]
    return FinishedRun.of(view, run, comparison_folder(home(), comparison) / run / "adapter")
