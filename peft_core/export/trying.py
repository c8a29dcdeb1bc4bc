"""Finished runs of a comparison asked side by side, and the evaluation rows on which their answers differ."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from peft_core.export.finished import FinishedRun
from peft_core.export.predicting import Predictors
from peft_core.export.recipe import task_number
from peft_core.metrics.texts import normalized
from peft_core.records import InputError
from peft_core.tasks import Rows, Task
from peft_core.tasks._pixels import BadImage, pixels
from peft_core.training.data import chosen_tasks, row_counts
from peft_core.training.native import TaskFacts
from peft_core.training.problems import Prediction

ROLES = ("text", "text2", "question", "context", "image")
EXAMPLES = 4
MOST_ROWS = {"generation": 200}
"""Evaluation rows that are looked at, by problem: writing an answer takes a pass for every token."""
MOST_OTHER_ROWS = 2000
KEPT = 1000
"""Rows with different answers that a table holds."""
CHUNK = 32
APART = 0.5
"""Numbers differ that lie this far apart, in deviations of the training targets."""
SHOWN = 400
"""Characters of an input in the table."""
THUMBNAIL = 48
DRAWN = 256
INK = 40


def tasks_of(run: FinishedRun) -> list[str]:
    """Ids of the tasks that a run was trained on."""
    return [facts.id for facts in run.recipe().tasks]


def described(predictors: Predictors, run: FinishedRun, task: str) -> dict[str, Any]:
    """How a task's models can be asked: roles, labels, scale, and some evaluation rows to begin with.

    Raises:
        InputError: weights that cannot be had. Rows that cannot be had only leave the examples out, with a sentence.
    """
    facts = _facts(run, task)
    reading = facts.reading
    answer: dict[str, Any] = {
        "task": facts.id,
        "problem": facts.problem,
        "labels": list(facts.labels) if facts.labels else None,
        "roles": list(predictors.roles(run, task)),
        "mean": reading.mean if reading else None,
        "deviation": reading.deviation if reading else None,
        "scan": None,
        "examples": [],
        "why_no_examples": "",
    }
    try:
        source, options = _source(run, task)
        count = min(EXAMPLES, row_counts(run.view.comparison.spec, source.info)[1])
        rows = source.rows("eval", count, run.view.comparison.spec.data_seed, options)
    except InputError as error:
        return answer | {"why_no_examples": str(error)}
    entries = _entries(rows, answer["roles"])
    return answer | {"scan": getattr(source, "scan", None), "examples": [_sent(entry, None) for entry in entries]}


def answered(
    predictors: Predictors, runs: Sequence[FinishedRun], task: str, entry: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every run's answer to one input: ``run`` and the prediction's fields, or ``error``, a sentence.

    Raises:
        InputError: an input that no run takes, named by its role.
    """
    found = []
    for run in runs:
        try:
            ((prediction,),) = predictors.answers([run], [entry], task)
        except InputError as error:
            if error.field in ROLES:
                raise
            found.append({"run": run.row.run, "error": str(error)})
            continue
        found.append({"run": run.row.run, **as_json(prediction)})
    return found


def as_json(prediction: Prediction) -> dict[str, Any]:
    """A prediction with its confidence as pairs of label and probability, in the order of the classes."""
    found = prediction.as_dict()
    if prediction.confidence is not None:
        found["confidence"] = list(prediction.confidence.items())
    return found


def scanned(data: bytes, side: int) -> bytes:
    """A drawing, light on dark, as scans of side x side pixels are made: cut to its ink, centred, averaged.

    Raises:
        InputError: no image, or one without ink.
    """
    try:
        drawn = Image.fromarray(pixels(data, DRAWN)).convert("L")
    except BadImage as error:
        raise InputError("image", "the drawing", str(error)) from None
    box = drawn.point(lambda value: 255 if value > INK else 0).getbbox()
    if box is None:
        raise InputError("image", "an empty drawing", "draw something first")
    ink = drawn.crop(box)
    longest = max(ink.size)
    square = Image.new("L", (longest, longest))
    square.paste(ink, ((longest - ink.width) // 2, (longest - ink.height) // 2))
    return _png(square.resize((side, side), Image.Resampling.BOX))


class Disagreements:
    """Looks for the evaluation rows on which runs answer differently, some rows at a time (`step`).

    Classes and texts differ where they are not equal (texts without case, punctuation and articles), numbers where
    they lie `APART` or more from each other.

    Args:
        runs: of one comparison. task: one of theirs.

    Raises:
        InputError: rows or weights that cannot be had.
    """

    def __init__(self, predictors: Predictors, runs: Sequence[FinishedRun], task: str) -> None:
        self._predictors, self._runs, self._task = predictors, tuple(runs), task
        self._facts = _facts(self._runs[0], task)
        source, options = _source(self._runs[0], task)
        spec = self._runs[0].view.comparison.spec
        self.evaluated = row_counts(spec, source.info)[1]
        most = MOST_ROWS.get(self._facts.problem, MOST_OTHER_ROWS)
        self._rows = source.rows("eval", min(most, self.evaluated), spec.data_seed, options)
        self._entries = _entries(self._rows, predictors.roles(self._runs[0], task))
        self._truths = _truths(self._rows, self._facts)
        self._answers: list[list[Prediction]] = [[] for _ in self._runs]
        self._turn = 0

    @property
    def progress(self) -> tuple[int, int]:
        """Rows asked of all runs, and how many there are to ask."""
        return sum(map(len, self._answers)), len(self._entries) * len(self._runs)

    def step(self) -> bool:
        """Ask one run for some more rows. True while there are more."""
        answers = self._answers[self._turn]
        part = self._entries[len(answers) : len(answers) + CHUNK]
        (found,) = self._predictors.answers([self._runs[self._turn]], part, self._task)
        answers += found
        if len(answers) == len(self._entries):
            self._turn += 1
        return self._turn < len(self._runs)

    def table(self) -> dict[str, Any]:
        """The rows with different answers, once there are no more steps; of more than `KEPT` those that differ most.

        looked, evaluated: rows asked, and those that the comparison was scored on. differ: with different answers.
        right: by run how many were answered as the task has it, None where answers are numbers. rows: number of the
        row from 1, input, truth, and by run answer, confidence in it and right; spread: how far the answers differ,
        runs against the commonest answer or deviations of the training targets.
        """
        rows = [self._row(number) for number in range(len(self._entries))]
        right = [[row["right"][place] for row in rows] for place in range(len(self._runs))]
        differing = [row for row in rows if row["spread"] >= (APART if self._facts.problem == "regression" else 1)]
        kept = sorted(differing, key=lambda row: (-row["spread"], row["row"]))[:KEPT]
        for row in kept:
            row["input"] = _sent(self._entries[row["row"] - 1], SHOWN)
        return {
            "runs": [run.row.run for run in self._runs],
            "problem": self._facts.problem,
            "labels": list(self._facts.labels) if self._facts.labels else None,
            "looked": len(rows),
            "evaluated": self.evaluated,
            "differ": len(differing),
            "right": [sum(map(bool, marks)) if None not in marks else None for marks in right],
            "rows": sorted(kept, key=lambda row: row["row"]),
        }

    def _row(self, number: int) -> dict[str, Any]:
        answers = [found[number] for found in self._answers]
        truths = self._truths[number] if self._truths is not None else None
        return {
            "row": number + 1,
            "truth": truths[0] if truths else None,
            "answers": [answer.answer for answer in answers],
            "confidence": [answer.confidence[answer.answer] if answer.confidence else None for answer in answers],  # type: ignore[index]
            "right": [self._right(answer.answer, truths) for answer in answers],
            "spread": self._spread([answer.answer for answer in answers]),
        }

    def _right(self, answer: Any, truths: Sequence[Any] | None) -> bool | None:
        if truths is None or not isinstance(answer, str):
            return None
        return any(self._plain(answer) == self._plain(truth) for truth in truths)

    def _plain(self, text: str) -> str:
        return text if self._facts.problem == "classification" else normalized(text)

    def _spread(self, answers: Sequence[Any]) -> float:
        if isinstance(answers[0], str):
            plain = Counter(self._plain(answer) for answer in answers)
            return len(answers) - plain.most_common(1)[0][1]
        numbers = np.array(answers, dtype=np.float64).reshape(len(answers), -1)
        reading = self._facts.reading
        unit = np.array(reading.deviation) if reading and reading.deviation else 1.0
        return float(((numbers.max(0) - numbers.min(0)) / unit).max())


def _facts(run: FinishedRun, task: str) -> TaskFacts:
    recipe = run.recipe()
    return recipe.tasks[task_number(recipe, task)]


def _source(run: FinishedRun, task: str) -> tuple[Task, Mapping[str, Any]]:
    """Where a task's rows come from."""
    tasks = chosen_tasks(run.view.comparison.spec)
    found = next(((source, options) for source, options in tasks if source.info.id == task), None)
    if found is None:
        raise InputError("task", task, "its rows cannot be found any more")
    return found


def _entries(rows: Rows, roles: Sequence[str]) -> list[dict[str, Any]]:
    """Inputs by role.

    Raises:
        InputError: rows that have other columns.
    """
    missing = next((role for role in roles if role not in rows.columns), None)
    if missing is not None:
        raise InputError("task", missing, "its rows have no such column any more")
    return [{role: rows.columns[role][place] for role in roles} for place in range(len(rows))]


def _truths(rows: Rows, facts: TaskFacts) -> list[tuple[Any, ...]] | None:
    """By row what counts as right, the first for show; None where a teacher computes it."""
    if facts.problem == "generation":
        return [tuple(targets) for targets in rows.columns["target"]]
    if facts.problem == "span":
        texts = (tuple(dict.fromkeys(text for text, _ in answers)) for answers in rows.columns["answers"])
        return [found or ("",) for found in texts]
    if rows.labels is None:
        return None
    if facts.problem == "classification":
        names = facts.labels or tuple(map(str, range(facts.outputs)))
        return [(names[int(label)],) for label in rows.labels]
    return [(row[0] if len(row) == 1 else row,) for row in rows.labels.reshape(len(rows), -1).tolist()]


def _sent(entry: Mapping[str, Any], most: int | None) -> dict[str, str]:
    """An input for JSON: texts, cut to so many characters; an image as a PNG in base64, small where texts are cut."""
    found = {}
    for role, value in entry.items():
        if role != "image":
            found[role] = value if most is None or len(value) <= most else value[:most].rstrip() + " …"
            continue
        image = Image.fromarray(value)
        if most is not None:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
        found[role] = base64.b64encode(_png(image)).decode()
    return found


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
