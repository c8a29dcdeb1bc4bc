"""What the Compare tab asks beside the comparison itself: layers, links, command lines, comparisons to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft_core.records import InputError
from peft_core.report.layers import layer_ranks, layer_spectra
from peft_core.report.tables import strict
from ui.engine import Engine
from ui.form import Form, FormError, form_command, spec_from_form
from ui.links import LONGEST_QUERY, form_of, query_of
from ui.presets import presets
from ui.service import Service


class CompareService:
    """Beside `Service`, which it asks for comparisons."""

    def __init__(self, service: Service, engine: Engine) -> None:
        self._service, self._engine = service, engine

    def layers(self, comparison_id: str, label: str, after: int = 0) -> dict[str, Any]:
        """The ranks of every site of one method, measured after `after`."""
        view = self._service.comparison(comparison_id, after)
        runs = {run.run for run in view.runs if run.label == label}
        return strict({"seq": view.seq, "after": after, **layer_ranks(view.events, runs)})

    def spectra(self, comparison_id: str, site: str | None = None, after: int = 0) -> dict[str, Any]:
        """Singular values recorded after `after`: a site's, or the mean over all."""
        view = self._service.comparison(comparison_id, after)
        return strict({"seq": view.seq, "after": after, "runs": layer_spectra(view.events, site)})

    def presets(self) -> list[dict[str, Any]]:
        return list(presets())

    def said(self, form: Form) -> dict[str, Any]:
        """The form as a query string and as a command; `why` there is no command yet, where something is missing."""
        query = query_of(form)
        shown: dict[str, Any] = {"query": query if len(query) <= LONGEST_QUERY else "", "command": "", "why": ""}
        try:
            return shown | {"command": form_command(form, spec_from_form(form, self._engine.resolve))}
        except FormError as error:
            return shown | {"why": error.errors[0].message}
        except InputError as error:
            return shown | {"why": str(error)}

    def linked(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The form of a link; None where it has none. `notes` say what of it was moved or left out."""
        form, notes = form_of(pairs, self._engine.catalogue())
        if form is None:
            return {"form": None, "notes": []}
        try:
            self._service.allow(form.task)
        except InputError as error:
            form, notes = form.model_copy(update={"task": "", "task_options": {}}), [*notes, str(error)]
        return {"form": form.model_dump(), "notes": notes}
