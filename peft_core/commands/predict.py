"""``predict``: what a trained run of the store answers to a text, a question, images or the rows of a table."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_core.commands._output import print_json, print_table
from peft_core.records import InputError, RunState, View
from peft_core.runs import home, stored_view
from peft_core.runs.folders import comparison_folder, comparison_of

if TYPE_CHECKING:
    from peft_core.export.predicting import Predictor
    from peft_core.training.problems import Prediction

WAYS = ("text", "question", "image", "file")


def predict(options: argparse.Namespace) -> int:
    """Prints answers: one JSON document or a table; for a table's rows JSON lines or CSV, as they are made."""
    asked = _asked(options)
    comparison = comparison_of(options.id)[0]
    view = stored_view(comparison)
    run = _run_of(options.id, view)
    predictor = _loaded(view, run, comparison_folder(home(), comparison) / run / "adapter", options.task)
    if options.file is not None:
        _stream(predictor.table(Path(options.file).expanduser()), options.json)
        return 0
    entries = [prediction.as_dict() for prediction in predictor.answers(asked)]
    if options.json:
        trained = predictor.trained
        print_json({"id": run, "method": trained.recipe.method, "task": trained.facts.id, "predictions": entries})
    else:
        _print(entries)
    return 0


def _asked(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The inputs that stand in the command line; none for a table."""
    given = [way for way in WAYS if getattr(options, way) is not None]
    if len(given) != 1:
        allowed = "give one of --text, --question with --context, --image, or --file"
        raise InputError("input", ", ".join(given) or None, allowed)
    for second, first in (("text2", "text"), ("context", "question")):
        if getattr(options, second) is not None and first != given[0]:
            raise InputError(second, getattr(options, second), f"it goes with --{first}")
    if given == ["image"]:
        return [{"image": Path(name).expanduser()} for name in options.image]
    roles = {"text": ("text", "text2"), "question": ("question", "context"), "file": ()}[given[0]]
    entry = {role: getattr(options, role) for role in roles if getattr(options, role) is not None}
    return [entry] if entry else []


def _run_of(given: str, view: View) -> str:
    """The run of an id; that of a comparison stands for its only finished run."""
    if comparison_of(given)[1]:
        return given
    finished = [row.run for row in view.runs if row.state == RunState.FINISHED]
    if len(finished) != 1:
        allowed = f"it must be one of its finished runs: {', '.join(finished)}" if finished else "no run of it finished"
        raise InputError("id", given, allowed)
    return finished[0]


def _loaded(view: View, run: str, folder: Path, task: str | None) -> Predictor:
    from peft_core.export.finished import FinishedRun
    from peft_core.export.predicting import Predictor
    from peft_core.export.recipe import attach_trained, backbone_of, task_number
    from peft_core.training.environment import pick_device

    recipe = FinishedRun.of(view, run, folder).recipe()
    number = task_number(recipe, task)
    backbone = backbone_of(recipe, number, device=str(pick_device("auto")))
    return Predictor(attach_trained(recipe, backbone, folder, number))


def _stream(rows: Iterator[tuple[int, Prediction]], as_json: bool) -> None:
    from peft_core.report.tables import neutral

    table, first = csv.writer(sys.stdout, lineterminator="\n"), True
    for row, prediction in rows:
        if as_json:
            print_json({"row": row, **prediction.as_dict()})
            continue
        flat = _flat(prediction.as_dict())
        if first:
            table.writerow(["row", *flat])
            first = False
        table.writerow([row, *map(neutral, flat.values())])


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """One value a column: of several numbers one column each, of classes the confidence in the answer."""
    answer = entry["answer"]
    found = (
        {f"answer {place}": value for place, value in enumerate(answer)}
        if isinstance(answer, tuple)
        else {"answer": answer}
    )
    if "confidence" in entry:
        found["confidence"] = entry["confidence"][answer]
    return found | {name: entry[name] for name in ("score", "standardised") if name in entry}


def _print(entries: list[dict[str, Any]]) -> None:
    """Every class with its confidence, or the answers."""
    for entry in entries:
        if "confidence" in entry:
            shares = sorted(entry["confidence"].items(), key=lambda item: -item[1])
            print_table(("label", "confidence"), [{"label": name, "confidence": share} for name, share in shares])
        else:
            flat = _flat(entry)
            print_table(tuple(flat), [flat])
