"""What the Runs tab asks for and does, as plain functions over the supervisor. No gradio here, no HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from peft_core.records import ComparisonRow, InputError, RunState, View
from peft_core.report import tables
from peft_core.report.palette import look
from peft_core.report.wire import packed
from peft_core.runs import Refused, RunPage, RunQuery
from ui.exports import FORMATS, Exports
from ui.logins import Login
from ui.pushes import Pushes, Wanted
from ui.service import title

LONGEST_NOTE = 2000
MOST_CURVES = 24
NO_EVENTS = 2**62


class AllRuns(Protocol):
    """The part of the supervisor that the Runs tab uses."""

    def list_runs(self, query: RunQuery) -> RunPage: ...

    def choices(self) -> dict[str, list[tuple[str, int]]]: ...

    def view_of_run(self, run: str, after: int = 0) -> View: ...

    def notes(self, run: str) -> tuple[str, str]: ...

    def write_note(self, given: str, text: str) -> None: ...

    def hide(self, given: str) -> float: ...

    def unhide(self, comparison_id: str) -> None: ...

    def hidden(self) -> list[tuple[ComparisonRow, float]]: ...


class RunsService:
    """The Runs tab's questions and commands."""

    def __init__(self, runs: AllRuns, exports: Exports, pushes: Pushes) -> None:
        self._runs, self._exports, self._pushes = runs, exports, pushes

    def listed(self, query: RunQuery, *, choices: bool) -> dict[str, Any]:
        """A page of the list, what can still be brought back, and with `choices` what can be filtered by."""
        page = self._runs.list_runs(query)
        answer: dict[str, Any] = {
            "total": page.total,
            "offset": query.offset,
            "rows": [dataclasses.asdict(row) for row in page.rows],
            "deleted": [
                {"id": row.id, "title": title(row), "runs": _count(row), "seconds": left}
                for row, left in self._runs.hidden()
            ],
        }
        return tables.strict(answer | ({"choices": self._runs.choices()} if choices else {}))

    def run(self, run: str, login: Login) -> dict[str, Any]:
        """All about one run but its curves, and how whoever asks may push it."""
        view = self._runs.view_of_run(run, NO_EVENTS)
        row, comparison = _only(view, run), view.comparison
        note, comparison_note = self._runs.notes(run)
        result = row.result.model_dump(mode="json", exclude={"resampled"}) if row.result else None
        return tables.strict(
            {
                "run": row.run,
                "comparison": comparison.id,
                "title": title(comparison),
                "runs": _count(comparison),
                "label": row.label,
                "seed": row.seed,
                "state": str(row.state),
                "ended": row.state.ended,
                "resumable": row.state in (RunState.CANCELLED, RunState.INTERRUPTED, RunState.FAILED),
                "error": row.error,
                "config": row.config,
                "result": result,
                "metric": comparison.metric,
                "environment": comparison.environment,
                "note": note,
                "comparison_note": comparison_note,
                "formats": list(FORMATS) if row.state is RunState.FINISHED else [],
                "fixed": False,
                "push": {"way": login.way, "name": login.name},
            }
        )

    def curves(self, asked: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """Curves of runs of any comparisons for one chart: what came after the given events.

        Args:
            asked: ids with the `seq` that was seen last; 0: all of it.

        Raises:
            InputError: too many, or one that there is not.
        """
        if len(asked) > MOST_CURVES:
            raise InputError("run", len(asked), f"at most {MOST_CURVES} runs fit into one chart")
        found = [(run, after, self._runs.view_of_run(run, after)) for run, after in asked]
        views = [(_only(view, run), view, after) for run, after, view in found]
        metrics = list(dict.fromkeys(view.comparison.metric for _, view, _ in views if view.comparison.metric))
        runs = [
            {
                "run": row.run,
                "label": row.label,
                "seed": row.seed,
                "task": view.comparison.spec.task,
                "model": view.comparison.spec.model,
                "state": str(row.state),
                "error": row.error,
                "metric": view.comparison.metric,
                "after": after,
                "seq": view.seq,
                "points": packed(view.events, view.comparison.metric).get(row.run, {}),
            }
            for row, view, after in views
        ]
        looks = [vars(look(place)) for place in range(MOST_CURVES)]
        return tables.strict({"runs": runs, "looks": looks, "refused": refusals(metrics)})

    def note(self, given: str, text: str) -> None:
        """Keep a note on a run or on a comparison."""
        if len(text) > LONGEST_NOTE:
            raise InputError("note", f"{len(text)} characters long", f"it may have {LONGEST_NOTE:,} characters")
        self._runs.write_note(given, text.strip())

    def delete(self, given: str) -> dict[str, Any]:
        """Delete the comparison of an id; that can be undone for some seconds."""
        return {"seconds": self._runs.hide(given)}

    def undo(self, comparison_id: str) -> None:
        """Bring a deleted comparison back."""
        self._runs.unhide(comparison_id)

    def export(self, run: str, kind: str) -> dict[str, Any]:
        """Have an archive of a finished run made; the id to ask for it by."""
        self._finished(run, "exported")
        return {"job": self._exports.begin(run, kind)}

    def export_state(self, job: str) -> dict[str, Any]:
        """How far an archive is."""
        found = self._exports.job(job)
        return {"state": found.state, "message": found.message}

    def archive(self, job: str) -> tuple[Path, str]:
        """The file of an archive that is ready, and its name."""
        return self._exports.archive(job)

    def push(self, wanted: Wanted, token: str, login: Login) -> dict[str, Any]:
        """Have a finished run pushed to the Hub; the id to ask for it by.

        Args:
            token: typed by the visitor; empty for this machine's login. A public page takes none.
        """
        if login.way == "none":
            raise Refused("Pushing to the Hub is not offered here: this host has no sign-in of the Hub.")
        if login.way != "token" and token:
            raise Refused("This is a public page, which takes no tokens; sign in to the Hub instead.")
        if login.way == "sign-in":
            raise Refused("Sign in to the Hub first; only your own account can push from here.")
        self._finished(wanted.run, "pushed")
        return {"job": self._pushes.begin(wanted, login.token or token, login.visitor)}

    def push_state(self, job: str) -> dict[str, Any]:
        """How far a push is."""
        found = self._pushes.job(job)
        return {"state": found.state, "message": found.message, "address": found.address}

    def _finished(self, run: str, done: str) -> None:
        row = _only(self._runs.view_of_run(run, NO_EVENTS), run)
        if row.state is not RunState.FINISHED:
            raise InputError("id", run, f"the run is {row.state.value}; only a finished one can be {done}")


def refusals(metrics: Collection[str]) -> dict[str, str]:
    """Which curves cannot share a chart, and why."""
    if len(metrics) < 2:
        return {}
    named = ", ".join(metric.replace("_", " ") for metric in metrics)
    sentence = f"These runs are scored by different metrics ({named}), which have no axis in common. "
    return {"score": sentence + "Choose runs of one metric, or compare their loss or rank."}


def _count(row: ComparisonRow) -> int:
    return len(row.spec.methods) * len(row.spec.seeds)


def _only(view: View, run: str) -> Any:
    found = next((row for row in view.runs if row.run == run), None)
    if found is None:
        raise InputError("id", run, "it must be a run")
    return found
