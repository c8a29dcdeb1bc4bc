"""A trained adapter asked for answers: texts, pairs, questions, images or tables in, predictions out.

Inputs are read as training read its rows: the same columns, cut to the same length, images brought to the same size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from peft_core.export.finished import FinishedRun
from peft_core.export.recipe import Recipe, Trained, attach_trained, backbone_of, task_number
from peft_core.records import InputError
from peft_core.tasks import Rows
from peft_core.tasks._pixels import BadImage, pixels
from peft_core.tasks._tables import SUFFIXES, TableFile, suffix_of
from peft_core.training.problems import Prediction, problem_named
from peft_core.training.reading import Reading

if TYPE_CHECKING:
    from peft_core.backbones._backbone import TransformerBackbone

Asked = Mapping[str, Any]
"""One input by role: text, text2, question, context (str), or image: a path, a file's bytes, or uint8 (h, w, 3)."""
CHUNK = 1024
"""Inputs encoded at once; batches of the model are smaller."""


@dataclass(frozen=True)
class Predictor:
    """Answers of one trained adapter. Several may share a backbone; then they must be asked one after the other."""

    trained: Trained

    @property
    def reading(self) -> Reading:
        return self.trained.facts.reading or Reading()

    @property
    def roles(self) -> tuple[str, ...]:
        """What an input must have. Of an adapter made elsewhere it is told by its problem."""
        if self.reading.columns:
            return tuple(self.reading.columns)
        if self.trained.backbone.modality == "image":
            return ("image",)
        return ("question", "context") if self.trained.facts.problem == "span" else ("text",)

    def answers(self, asked: Sequence[Asked]) -> list[Prediction]:
        """Predictions in the order of the inputs, at most `CHUNK` of which are encoded at once.

        Raises:
            InputError: an input that the model does not take, named by its role.
        """
        self._check(asked)
        found: list[Prediction] = []
        for start in range(0, len(asked), CHUNK):
            found += self._answered(asked[start : start + CHUNK])
        return found

    def table(self, path: Path) -> Iterator[tuple[int, Prediction]]:
        """Row number (a header line is row 1) and prediction of every row of a table, in order, as they are made.

        Columns are those of the training table, else the ones called like the roles.

        Raises:
            InputError: no table that can be read, a missing column, an empty cell.
        """
        source, columns = self._opened(path)
        row = source.first_row
        for batch in source.batches(tuple(dict.fromkeys(columns.values()))):
            for start in range(0, len(batch), CHUNK):
                part = batch.slice(start, CHUNK)
                cells = {role: part.column(name).to_pylist() for role, name in columns.items()}
                for role, values in cells.items():
                    empty = next((place for place, value in enumerate(values) if not (value or "").strip()), None)
                    if empty is not None:
                        allowed = f"row {row + empty} has nothing in the column {columns[role]!r}"
                        raise InputError("file", source.name, allowed)
                asked = [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]
                for place, prediction in enumerate(self._answered(asked)):
                    yield row + place, prediction
                row += len(part)

    def _opened(self, path: Path) -> tuple[TableFile, dict[str, str]]:
        """The table, and its column of every role."""
        if "image" in self.roles:
            raise InputError("file", str(path), "the model reads images; give them one by one")
        if not path.is_file():
            raise InputError("file", str(path), "there is no such file")
        if not suffix_of(path):
            raise InputError("file", str(path), f"it must be a table that ends in {', '.join(SUFFIXES)} (or .gz)")
        source = TableFile(path)
        return source, {role: self._column(role, source) for role in self.roles}

    def _column(self, role: str, source: TableFile) -> str:
        wanted = tuple(dict.fromkeys((self.reading.columns.get(role, role), role)))
        name = next((name for name in wanted if name in source.columns), None)
        if name is None:
            there = ", ".join(source.columns[:12])
            missing = " or ".join(map(repr, wanted))
            raise InputError("file", source.name, f"it has no column {missing}; its columns are {there}")
        return name

    def _check(self, asked: Sequence[Asked]) -> None:
        roles = self.roles
        allowed = {*roles, "text2"} if roles == ("text",) and not self.reading.columns else set(roles)
        said = f"the model was trained on {' and '.join(roles)}"
        for entry in asked:
            odd, missing = sorted(entry.keys() - allowed), [role for role in roles if entry.get(role) is None]
            if odd:
                raise InputError(odd[0], entry[odd[0]], said)
            if missing:
                raise InputError(missing[0], None, f"{said}; give {'it' if len(roles) == 1 else 'all of them'}")
            for role, value in entry.items():
                if role != "image" and (not isinstance(value, str) or not value.strip()):
                    raise InputError(role, value, "it must be a text that is not empty")
        if len({frozenset(entry) for entry in asked}) > 1:
            raise InputError("text2", None, "either every input has one or none")

    def _answered(self, asked: Sequence[Asked]) -> list[Prediction]:
        if not asked:
            return []
        trained, reading = self.trained, self.reading
        problem = problem_named(trained.facts.problem)
        rows = problem.asked(self._rows(asked), trained.backbone, reading)
        trained.attached.task = trained.task
        found = problem.answers(trained.attached, rows, trained.facts.labels, reading)
        if not all(prediction.finite for prediction in found):
            raise InputError("adapter", trained.recipe.method, "its answers are not finite")
        return found

    def _rows(self, asked: Sequence[Asked]) -> Rows:
        if "image" not in self.roles:
            return Rows({role: [entry[role] for entry in asked] for role in asked[0]}, None)
        side = self.reading.image_size or int(self.trained.backbone.config.image_size)
        return Rows({"image": np.stack([_pixels(entry["image"], side) for entry in asked])}, None)


def _pixels(image: Any, side: int) -> np.ndarray:
    """uint8 (side, side, 3)."""
    named = str(image) if isinstance(image, str | Path) else "an image"
    try:
        if isinstance(image, np.ndarray):
            image = _as_file(image)
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        return pixels(data, side)
    except (BadImage, TypeError) as error:
        raise InputError("image", named, str(error)) from None
    except OSError as error:
        raise InputError("image", named, f"it cannot be read ({error.strerror})") from None


def _as_file(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadImage("an array must be uint8 of the shape (height, width, 3)")
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PPM")
    return file.getvalue()


class Predictors:
    """Trained runs that stay loaded, those on the same weights with one copy of them; may be used by several threads.

    Args:
        backbones: kept at most, the one that was used last the longest.
        runs: adapters kept at most on each of them.
        device: a torch device.
    """

    def __init__(self, backbones: int = 2, runs: int = 32, device: str = "cpu") -> None:
        self._most, self._runs, self._device = backbones, runs, device
        self._kept: OrderedDict[object, _Shared] = OrderedDict()
        self._lock = Lock()

    def answers(
        self, runs: Sequence[FinishedRun], asked: Sequence[Asked], task: str | None = None
    ) -> list[list[Prediction]]:
        """For every run its predictions for all inputs, in the order of both.

        Args:
            task: whose head answers, where several tasks were trained together.

        Raises:
            InputError: weights that cannot be had, or an input that the model does not take.
        """
        with self._lock:
            return [self._predictor(run, task).answers(asked) for run in runs]

    def roles(self, run: FinishedRun, task: str | None = None) -> tuple[str, ...]:
        """What an input of a run must have; see `Predictor.roles`."""
        with self._lock:
            return self._predictor(run, task).roles

    def clear(self) -> None:
        """Lets everything go."""
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        """Backbones that are loaded."""
        return len(self._kept)

    def _predictor(self, run: FinishedRun, task: str | None) -> Predictor:
        recipe = run.recipe()
        number = task_number(recipe, task)
        facts = recipe.tasks[number]
        key = (recipe.model, facts.problem, facts.outputs, facts.labels)
        if key not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            self._kept[key] = _Shared(backbone_of(recipe, number, device=self._device), self._runs)
        self._kept.move_to_end(key)
        return self._kept[key].predictor(recipe, run.folder, number)


class _Shared:
    """A backbone and the adapters on it."""

    def __init__(self, backbone: TransformerBackbone, most: int) -> None:
        self._backbone, self._most = backbone, most
        self._on_it: OrderedDict[tuple[Path, int], Predictor] = OrderedDict()

    def predictor(self, recipe: Recipe, folder: Path, number: int) -> Predictor:
        key = (folder, number)
        if key not in self._on_it:
            while len(self._on_it) >= self._most:
                self._on_it.popitem(last=False)
            self._on_it[key] = Predictor(attach_trained(recipe, self._backbone, folder, number))
        self._on_it.move_to_end(key)
        return self._on_it[key]
