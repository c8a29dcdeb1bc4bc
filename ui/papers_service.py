"""What the Papers tab asks for: quoted figures with the presets that measure them here, and measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from peft_core.records import MethodSpec, QuotedFigure
from peft_core.records.quoted import PAPERS
from peft_core.report import tables
from peft_core.report.marked import ENCODER_MISSING, encoder_rows, reproduction_rows, shipped_encoder
from peft_core.report.quoted import quoted_figures
from peft_core.report.reproduction import MISSING, shipped_reproduction

COLUMNS = ("paper", "table", "printed", "method", "model", "task", "metric", "score", "std", "about", "presets")
"""Of a quoted row, in the order in which its values are sent."""


class Presets(Protocol):
    """The part of the engine that the tab uses."""

    def catalogue(self) -> dict[str, Any]: ...

    def benchmarks(self) -> list[dict[str, Any]]: ...

    def presets(self, task: str) -> list[dict[str, Any]]: ...


class Papers:
    """The tab's questions."""

    def __init__(self, engine: Presets) -> None:
        self._engine = engine
        self._quoted: dict[str, Any] | None = None

    def quoted(self) -> dict[str, Any]:
        """Every quoted figure as a list of values under `columns`; presets: of the same paper, model and method."""
        if self._quoted is None:
            figures = quoted_figures()
            listed = {task: self._engine.presets(task) for task in {figure.task for figure in figures}}
            rows = [_row(figure, listed[figure.task]) for figure in figures]
            self._quoted = {"papers": dict(PAPERS), "columns": list(COLUMNS), "rows": rows}
        return self._quoted

    def measured(self) -> dict[str, Any]:
        """Measured rows with their marks; missing: a sentence for each file that is not here."""
        parts = (
            (shipped_encoder(), encoder_rows, ENCODER_MISSING),
            (shipped_reproduction(), reproduction_rows, MISSING),
        )
        rows = [row for document, rows_of, _ in parts if document is not None for row in rows_of(document)]
        return tables.strict({"rows": rows, "missing": [said for document, _, said in parts if document is None]})

    def here(self) -> dict[str, dict[str, bool]]:
        """Which of the models and benchmarks are on this machine: a preset runs at once where both are."""
        return {
            "models": {model["id"]: bool(model.get("at_hand")) for model in self._engine.catalogue()["models"]},
            "tasks": {task["id"]: bool(task.get("at_hand")) for task in self._engine.benchmarks()},
        }


def _row(figure: QuotedFigure, presets: Sequence[Mapping[str, Any]]) -> list[Any]:
    values = figure.model_dump() | {"presets": presets_for(figure, presets)}
    return [values[name] for name in COLUMNS]


def presets_for(figure: QuotedFigure, presets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The presets that measure a figure: of its paper, model and method, no option set to another value.

    Returns: name, and options: those of the figure's method that the preset leaves open, as texts.
    """
    if figure.method is None:
        return []
    spec = MethodSpec.parse(figure.method)
    found = []
    for preset in presets:
        if (preset["paper"], preset["model"], preset["method"]) != (figure.paper, figure.model, spec.id):
            continue
        given = preset["options"]
        if all(given.get(name, value) == value for name, value in spec.options.items()):
            rest = {name: _text(value) for name, value in spec.options.items() if name not in given}
            found.append({"name": preset["name"], "options": rest})
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
