"""What the sender of a request may see and change: the supervisor behind a public page, one visitor at a time.

Everybody sees comparisons on data that everybody has (embedded tasks, benchmarks, data sets of the Hub). A comparison
on an uploaded file is seen by its visitor alone, and so is one that begins with such a run. Nobody sees what was run
here otherwise. Only the visitor who asked for a comparison stops, resumes, deletes, annotates, tries or exports it.
"""

from __future__ import annotations

import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from peft_core.records import ComparisonRow, ComparisonSpec, InputError, View
from peft_core.runs import Refused, RunPage, RunQuery, Supervisor
from peft_core.runs.folders import comparison_of, unknown
from peft_core.runs.visits import Visit
from ui.public_limits import PublicLimits
from ui.scrub import scrubbed
from ui.visitors import Visitor, current

NOT_YOURS = "This was started by another visitor; only whoever started it can do that."
NO_COOKIE = "Nothing can be started from here, for this browser keeps no cookie of the page."
KEPT_VISITS = 10_000
_RUN = re.compile(r"(?<![a-z0-9])[a-z][a-z0-9]{7}(?:-\d{1,5})?(?![a-z0-9])", re.ASCII)


class Belongings:
    """`Supervisor` for the visitor who asks. Everything of it that the page uses; the rest cannot be reached.

    Args:
        is_own_data: whether a task is of files that a visitor brought.
        only_own: show nothing but the visitor's own comparisons.
    """

    def __init__(
        self, runs: Supervisor, is_own_data: Callable[[str], bool], limits: PublicLimits, *, only_own: bool = False
    ) -> None:
        self._runs, self._is_own_data, self._limits, self._only_own = runs, is_own_data, limits, only_own
        self._keeping = threading.Lock()
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self.home: Path = runs.home

    def only_own(self) -> Belongings:
        """The same for a part of the page that shows nothing of others."""
        return Belongings(self._runs, self._is_own_data, self._limits, only_own=True)

    # --- whose ---

    def visit(self, given: str) -> Visit | None:
        """Who asked for a comparison, or for that of a run."""
        comparison, _ = comparison_of(given)
        found = self._visits.get(comparison)
        if found is None and (found := self._runs.visit_of(comparison)) is not None:
            with self._keeping:
                self._visits[comparison] = found
                while len(self._visits) > KEPT_VISITS:
                    self._visits.popitem(last=False)
        return found

    def owns(self, given: str) -> bool:
        """Whether it is the visitor's own."""
        visit = self.visit(given)
        return visit is not None and bool(current().id) and visit.visitor == current().id

    def check_seen(self, given: str) -> None:
        """Raises the `InputError` of an id that there is not for what the visitor may not see."""
        visit = self.visit(given)
        if visit is None or (not self.owns(given) and (visit.private or self._only_own)):
            raise unknown(given)

    def check_own(self, given: str) -> None:
        """Raises `Refused` for what others may see and only its own visitor may do."""
        self.check_seen(given)
        if not self.owns(given):
            raise Refused(NOT_YOURS)

    # --- doing ---

    def submit(self, spec: ComparisonSpec) -> str:
        """As the supervisor's.

        Raises:
            Refused: the visitor, or the address, has as many under way as it may have; or it is nobody's request.
        """
        visitor = current()
        if not visitor.id:
            raise Refused(NO_COOKIE)
        for method in spec.methods:
            if method.start is not None:
                self.check_own(method.start)
        visit = Visit(visitor.id, visitor.address, self._is_private(spec))
        admit = functools.partial(self._check_places, visitor)
        admit()  # before anything is asked of the Hub, and once more when the answers are there
        made = self._runs.submit(spec, visit, admit)
        for old in self._runs.ended_visits_beyond(self._limits.kept):
            self._runs.delete(old)
        return made

    def _is_private(self, spec: ComparisonSpec) -> bool:
        if self._is_own_data(spec.task):
            return True
        named = {match for method in spec.methods for value in method.options.values() if isinstance(value, str)
                 for match in _RUN.findall(value)}  # fmt: skip
        return any((visit := self.visit(name)) is not None and visit.private for name in named)

    def _check_places(self, visitor: Visitor) -> None:
        taken = self._runs.unfinished_visits()
        own = sum(visit.visitor == visitor.id for visit in taken)
        if own >= self._limits.visitor_comparisons:
            raise Refused(
                f"You have {_comparisons(own)} queued or running, as many as one visitor may have here; "
                "start the next one when one has ended, or stop one."
            )
        here = sum(visit.address == visitor.address for visit in taken)
        if here >= self._limits.address_comparisons:
            raise Refused(
                f"{_comparisons(here).capitalize()} from your network are queued or running, as many as one network "
                "may have here; try again when one has ended."
            )

    def cancel(self, given: str) -> bool:
        self.check_own(given)
        return self._runs.cancel(given)

    def resume(self, given: str) -> list[str]:
        self.check_own(given)
        return self._runs.resume(given, functools.partial(self._check_places, current()))

    def hide(self, given: str) -> float:
        self.check_own(given)
        return self._runs.hide(given)

    def unhide(self, comparison_id: str) -> None:
        self.check_own(comparison_id)
        self._runs.unhide(comparison_id)

    def write_note(self, given: str, text: str) -> None:
        self.check_own(given)
        self._runs.write_note(given, text)

    # --- seeing ---

    def view(self, comparison_id: str, after: int = 0) -> View:
        self.check_seen(comparison_id)
        return _without_paths(self._runs.view(comparison_id, after))

    def view_of_run(self, run: str, after: int = 0) -> View:
        self.check_seen(run)
        return _without_paths(self._runs.view_of_run(run, after))

    def notes(self, run: str) -> tuple[str, str]:
        """Notes are for whoever wrote them."""
        self.check_seen(run)
        return self._runs.notes(run) if self.owns(run) else ("", "")

    def comparisons(self) -> list[ComparisonRow]:
        return [_row(row) for row in self._runs.comparisons() if self._seen(row.id)]

    def recent(self, newest: int) -> list[ComparisonRow]:
        return [_row(row) for row in self._runs.recent(newest, current().id) if self._seen(row.id)]

    def hidden(self) -> list[tuple[ComparisonRow, float]]:
        return [(row, left) for row, left in self._runs.hidden() if self.owns(row.id)]

    def list_runs(self, query: RunQuery) -> RunPage:
        page = self._runs.list_runs(query, current().id)
        return replace(
            page,
            rows=tuple(
                replace(row, error=scrubbed(row.error))
                if self.owns(row.comparison)
                else replace(row, error=scrubbed(row.error), note="", comparison_note="")
                for row in page.rows
            ),
        )

    def choices(self) -> dict[str, list[tuple[str, int]]]:
        return self._runs.choices(current().id)

    def _seen(self, comparison_id: str) -> bool:
        try:
            self.check_seen(comparison_id)
        except InputError:
            return False
        return True


def _comparisons(number: int) -> str:
    return f"{number} comparisons" if number != 1 else "one comparison"


def _row(row: ComparisonRow) -> ComparisonRow:
    return row.model_copy(update={"message": scrubbed(row.message)}) if row.message else row


def _without_paths(view: View) -> View:
    """The view whose reasons of failures name no folder of this machine."""
    runs = tuple(run.model_copy(update={"error": scrubbed(run.error)}) if run.error else run for run in view.runs)
    events = [event | {"error": scrubbed(event["error"])} if event.get("error") else event for event in view.events]
    return View.model_construct(seq=view.seq, comparison=_row(view.comparison), runs=runs, events=events)
