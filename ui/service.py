"""What the page asks for and does, as plain functions over the supervisor. No gradio here, no HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import resources
from typing import Any, Protocol

from peft_core.records import (
    UPLOAD,
    ComparisonRow,
    ComparisonSpec,
    InputError,
    MethodSpec,
    RunState,
    TrainingConfig,
    View,
    checked,
    public_mode,
)
from peft_core.report import figures, pareto, report_html, results_document, tables
from peft_core.report.palette import look
from peft_core.report.reproduction import MISSING, shipped_reproduction, shown
from peft_core.report.series import labels
from peft_core.report.wire import packed
from peft_core.runs import ranks_of_method, with_learned_ranks
from peft_core.runs.adopt import check_task
from ui.engine import Engine
from ui.form import (
    FieldError,
    Form,
    FormError,
    Look,
    MethodRow,
    command_line,
    field_of,
    first_form,
    form_from_spec,
    given,
    lock_reference,
    preview_line,
    scalar,
    spec_from_form,
    task_options,
    typed,
)
from ui.uploads import Uploads

log = logging.getLogger(__name__)
EXAMPLE = "example"
SHOWN_RECENT = 30
LOOKS = 35


class Runs(Protocol):
    """The part of the supervisor that the page uses."""

    def submit(self, spec: ComparisonSpec) -> str: ...

    def cancel(self, comparison_id: str) -> Any: ...

    def resume(self, comparison_id: str) -> Any: ...

    def view(self, comparison_id: str, after: int = 0) -> View: ...

    def comparisons(self) -> list[ComparisonRow]: ...

    def recent(self, newest: int) -> list[ComparisonRow]: ...


def shipped_example() -> View | None:
    """The finished comparison that comes with the project."""
    file = resources.files("assets") / "examples" / "default.json"
    if not file.is_file():
        return None
    view = View.model_validate_json(file.read_text(encoding="utf-8"))
    return view.model_copy(update={"comparison": view.comparison.model_copy(update={"origin": "shipped"})})


class Service:
    """The Compare tab's questions and commands."""

    def __init__(self, runs: Runs, engine: Engine, example: View | None, uploads: Uploads) -> None:
        self._runs, self._engine, self._example, self._uploads = runs, engine, example, uploads

    # --- reading ---

    def view(
        self, wanted: str | None, after: int = 0, reference: str | None = None, table: bool = False
    ) -> dict[str, Any]:
        """A comparison for the page: all of it, or what came after `after`. No id: the one to show first."""
        chosen = wanted or self._first()
        if chosen is None:
            return {"id": None, "looks": looks(), "form": first_form().model_dump()}
        return payload(self.comparison(chosen, after), after, reference, table)

    def _first(self) -> str | None:
        """The newest that is under way, else the newest of this machine, else the shipped example."""
        known = sorted(self._runs.recent(1), key=lambda row: row.number)
        live = [row for row in known if not row.state.ended]
        if live:
            running = [row for row in live if row.state is not RunState.QUEUED]
            return (running or live)[-1].id
        if known:
            return known[-1].id
        return EXAMPLE if self._example else None

    def comparison(self, comparison_id: str, after: int = 0) -> View:
        """A comparison with its events after `after`; `InputError` where there is none of that id."""
        if comparison_id == EXAMPLE and self._example:
            return self._example
        return self._runs.view(comparison_id, after)

    def recent(self) -> list[dict[str, Any]]:
        """What the menu of comparisons offers, newest first."""
        known = self._runs.recent(SHOWN_RECENT)[:SHOWN_RECENT]
        entries = [{"id": row.id, "title": title(row), "state": str(row.state)} for row in known]
        if self._example:
            entries.append({"id": EXAMPLE, "title": title(self._example.comparison), "state": "shipped example"})
        return entries

    def catalogue(self) -> dict[str, Any]:
        return {**self._engine.catalogue(), "upload_limit": self._uploads.file_limit, "public": public_mode()}

    def benchmarks(self) -> list[dict[str, Any]]:
        return self._engine.benchmarks()

    def presets(self, task: str) -> list[dict[str, Any]]:
        return self._engine.presets(task)

    def measured(self) -> dict[str, Any]:
        """What the project itself measured and ships, or the sentence that it is not here."""
        document = shipped_reproduction()
        return {"missing": MISSING} if document is None else tables.strict(shown(document))

    def preview(self, look: Look) -> dict[str, Any]:
        """What is in a task's rows, as a form shows it: guesses, problems, token lengths."""
        task, model = look.task.strip(), look.model.strip()
        if not task:
            raise InputError("task", look.task, "choose a task, or name data of your own")
        self.allow(task)
        options = task_options(look.task_options)
        limit = typed({"max_length": look.max_length}, TrainingConfig).get("max_length")
        checked(TrainingConfig, {"max_length": limit}, "training.")
        found = self._engine.preview(model, task, options, limit)
        line = preview_line(model, task, options, "" if limit is None else str(limit))
        return tables.strict({**found, "command": line})

    def allow(self, tasks: str) -> None:
        """On a public page a visitor names no files of the server but those that were uploaded.

        Raises:
            InputError: such a name.
        """
        if not public_mode() or self._uploads.holds(tasks):
            return
        for task in tasks.split("+"):
            if self._engine.task_origin(task.strip()) == "local" and not self._uploads.holds(task):
                allowed = "on a public page it must be a task of the list, an uploaded file or hub:owner/name"
                raise InputError("task", task, allowed)

    def budget(self, form: Form) -> list[dict[str, Any] | None]:
        """What each row of the form would train, before anything starts; None for a row that cannot be built.

        Under a budget lock the figures are of what it makes of the row, and `lock` says so.
        """
        tasks = form.task.count("+") + 1
        methods = [self._method_of(row) for row in form.methods]
        said: list[str | None] = [None] * len(methods)
        if form.lock and all(method is not None for method in methods):
            try:
                asked = [method for method in methods if method is not None]
                found, record = self._engine.locked(form.model, asked, form.lock, lock_reference(form, asked), tasks)
                methods, said = list(found), list(record.changes)
            except ValueError as error:
                said = [str(error)] * len(methods)
        return [self._budget_of(form.model, *row, tasks) for row in zip(methods, said, strict=True)]

    def _method_of(self, row: MethodRow) -> MethodSpec | None:
        options = {name: scalar(value) for name, value in given(row.options).items()}
        try:
            spec = ranks_of_method(MethodSpec(id=row.id, options=options), self._runs.view)
            self._engine.resolve(spec)
        except ValueError:
            return None
        return spec

    def _budget_of(self, model: str, spec: MethodSpec | None, said: str | None, tasks: int) -> dict[str, Any] | None:
        try:
            found = self._engine.budget(model, [spec], tasks)[0] if spec else None
        except ValueError:
            return None
        keys = ("trainable", "trainable_percent", "rank_bound", "adapter_flops_nominal", "adapter_flops_executed")
        return {key: found.get(key) for key in keys} | {"lock": said} if found else None

    # --- acting ---

    def start(self, form: Form) -> str:
        """Check a form and queue its comparison; nothing is started unless all of it holds."""
        spec = spec_from_form(form, self._engine.resolve)
        self.check(spec)
        return self._submit(self._locked(spec, form) if form.lock else spec)

    def check(self, spec: ComparisonSpec) -> None:
        """Raises `FormError` for a comparison that is larger than is taken here. A page of one's own takes any."""

    def _locked(self, spec: ComparisonSpec, form: Form) -> ComparisonSpec:
        try:
            self.allow(spec.task)
            return self._engine.lock(spec, form.lock, lock_reference(form, spec.methods))
        except InputError as error:
            raise FormError([FieldError(field_of(error, spec), str(error))]) from None

    def again(self, comparison_id: str) -> str:
        """Queue a shown comparison anew. An imported one trains from nothing on the task that it names."""
        row = self.comparison(comparison_id).comparison
        if row.environment.get("imported"):
            try:
                check_task(row.spec)
            except InputError as error:
                raise FormError([FieldError("task", str(error))]) from None
        return self._submit(row.spec)

    def _submit(self, spec: ComparisonSpec) -> str:
        self.check(spec)
        try:
            self.allow(spec.task)
            spec = with_learned_ranks(spec, self._runs.view)
            self._engine.check(spec)
            return self._runs.submit(spec)
        except InputError as error:
            raise FormError([FieldError(field_of(error, spec), str(error))]) from None

    def stop(self, comparison_id: str) -> None:
        self._runs.cancel(comparison_id)

    def resume(self, comparison_id: str) -> None:
        self._runs.resume(comparison_id)

    # --- files ---

    def download(self, comparison_id: str, kind: str, reference: str | None = None) -> tuple[str, str, str]:
        """(file name, media type, text) of what was measured."""
        if kind not in DOWNLOADS:
            raise InputError("format", kind, "it must be one of " + ", ".join(DOWNLOADS))
        view = self.comparison(comparison_id)
        media, make = DOWNLOADS[kind]
        return f"ranklab-{view.comparison.id}.{kind}", media, make(view, reference)


def _results_json(view: View, reference: str | None) -> str:
    return tables.dumped(results_document(view, reference))


DOWNLOADS: dict[str, tuple[str, Callable[[View, str | None], str]]] = {
    "csv": ("text/csv", lambda view, reference: tables.to_csv(tables.rows(view, reference))),
    "json": ("application/json", _results_json),
    "md": ("text/markdown", lambda view, reference: tables.to_markdown(tables.rows(view, reference))),
    "tex": ("application/x-tex", lambda view, reference: tables.to_latex(tables.rows(view, reference))),
    "html": ("text/html", report_html),
}


def title(row: ComparisonRow) -> str:
    """A comparison in one line: what differs from the next one in a list."""
    shown = ", ".join(str(method) for method in row.spec.methods[:3])
    more = f" and {len(row.spec.methods) - 3} more" if len(row.spec.methods) > 3 else ""
    return f"{_short(row.spec.task)} on {_short(row.spec.model)}: {shown}{more}"


def _short(name: str) -> str:
    """The last part of a path or of an uploaded file's name; any other name as it is."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith(("/", "~", ".", UPLOAD)) else name


def looks() -> list[dict[str, str]]:
    """The looks in label order, for rows of a form that have no label yet."""
    return [vars(look(place)) for place in range(LOOKS)]


def payload(view: View, after: int, reference: str | None = None, table: bool = False) -> dict[str, Any]:
    """A view as the page reads it; what never changes comes with the first one only."""
    row = view.comparison
    wants_table = table or after == 0 or any(event["event"] == "state" for event in view.events)
    data: dict[str, Any] = {
        **progress(view),
        "seq": view.seq,
        "after": after,
        "baseline": row.baseline_score,
        "plan": row.plan,
        "environment": row.environment,
        "points": packed(view.events, row.metric),
        **(_tabled(view, reference) if wants_table else {"table": None}),
        "first_evaluation": _first_evaluation(view),
    }
    return tables.strict(data | (_fixed(view) if after == 0 else {}))


def progress(view: View) -> dict[str, Any]:
    """How far a comparison is, and each of its runs."""
    row = view.comparison
    return {
        "id": EXAMPLE if row.origin == "shipped" else row.id,
        "state": str(row.state),
        "ended": row.state.ended,
        "queue_place": row.queue_place,
        "progress": row.progress,
        "eta_seconds": row.eta_seconds,
        "message": row.message,
        "metric": row.metric,
        "runs": [_run(run.model_dump(mode="json", exclude={"method", "result"})) for run in view.runs],
    }


def _tabled(view: View, reference: str | None) -> dict[str, Any]:
    table = tables.rows(view, reference)
    return {"table": table, "notes": tables.notes(table), "pareto": pareto.fronts(table)}


def _first_evaluation(view: View) -> int | None:
    """The step of the first evaluation, once the length of the runs is known."""
    training = view.comparison.spec.training
    total = next((run.total_steps for run in view.runs if run.total_steps), training.steps)
    return training.eval_interval(total) if total else training.eval_every


def _run(dumped: dict[str, Any]) -> dict[str, Any]:
    return {key: dumped[key] for key in ("run", "label", "seed", "state", "error", "step", "total_steps", "config")}


def _fixed(view: View) -> dict[str, Any]:
    row = view.comparison
    names = labels(view)
    return {
        "title": title(row),
        "created": row.created,
        "shipped": row.origin == "shipped",
        "spec": row.spec.model_dump(mode="json"),
        "form": form_from_spec(row.spec).model_dump(),
        "command": command_line(row.spec),
        "looks": looks(),
        "labels": [{"label": name, **vars(look(place))} for place, name in enumerate(names)],
        "guides": {name: figures.guides([_config(view, name)]) for name in names},
    }


def _config(view: View, label: str) -> dict[str, Any]:
    run = next((run for run in view.runs if run.label == label), None)
    return (run.config or dict(run.method.options)) if run else {}
