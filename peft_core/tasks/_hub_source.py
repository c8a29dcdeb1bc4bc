"""Rows of a loaded Hub data set as the tasks read them: text columns, or images with their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from peft_core.records import InputError
from peft_core.tasks._tables import BATCH, MAX_ROWS, capped, text_array

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


@dataclass(frozen=True)
class HubOrigin:
    """Which rows of the Hub: written into results."""

    repository: str
    configuration: str | None
    commit: str

    def of(self, split: str, rows: int) -> dict[str, Any]:
        found: dict[str, Any] = {"repository": self.repository, "configuration": self.configuration}
        return found | {"commit": self.commit, "split": split, "rows": rows}


class HubTable:
    """`Source` of one split. Columns inside a struct are called ``outer.inner``; numbers of classes stay numbers."""

    first_row = 1

    def __init__(self, data: datasets.Dataset, split: str, whence: HubOrigin) -> None:
        self.data, self.split, self.whence = data, split, whence
        self.name = f"{whence.repository} ({split})"

    def key(self) -> tuple[Any, ...]:
        return self.whence, self.split, len(self.data)

    def origin(self) -> dict[str, Any]:
        return self.whence.of(self.split, len(self.data))

    @cached_property
    def _inner(self) -> dict[str, tuple[str, ...]]:
        """Path of every column: its own name, or a struct's name and a field's."""
        found: dict[str, tuple[str, ...]] = {}
        for name, feature in self.data.features.items():
            if isinstance(feature, Mapping) and not {"text", "answer_start"} <= set(feature):
                found |= {f"{name}.{inner}": (name, inner) for inner in feature}
            else:
                found[name] = (name,)
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._inner)

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        features = self.data.features
        return {name: tuple(features[name].names) for name in features if hasattr(features[name], "names")}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return capped(self._batches(columns))

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        paths = [self._inner[name] for name in columns]
        chosen = self.data.select_columns(list(dict.fromkeys(path[0] for path in paths))).with_format("arrow")
        for table in chosen.iter(batch_size=BATCH):
            arrays = []
            for path in paths:
                column = table.column(path[0]).combine_chunks()
                column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
                arrays.append(text_array(column.field(path[1]) if len(path) == 2 else column))
            yield pa.RecordBatch.from_arrays(arrays, list(columns))


class HubImages:
    """`ImageSource` of a training and perhaps an evaluation split.

    columns: names of the image and the label column. classes: number of classes where the label column only holds
    numbers.
    """

    def __init__(
        self, splits: Mapping[str, tuple[str, datasets.Dataset]], whence: HubOrigin, columns: tuple[str, str]
    ) -> None:
        import datasets

        self.whence, self.name = whence, whence.repository
        self._image, self._label = columns
        for split, data in splits.values():
            missing = [name for name in columns if name not in data.column_names]
            if missing:
                raise InputError("task", self.name, f"its split {split} has no column {missing[0]!r}; it has "
                                 f"{', '.join(data.column_names)}")  # fmt: skip
        self._splits = {
            part: (split, data.cast_column(self._image, datasets.Image(decode=False)))
            for part, (split, data) in splits.items()
        }

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._splits)

    def key(self) -> tuple[Any, ...]:
        return self.whence, tuple(split for split, _ in self._splits.values()), self._image, self._label

    def origin(self) -> dict[str, Any]:
        return {part: self.whence.of(split, len(data)) for part, (split, data) in self._splits.items()}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        feature = self._splits["train"][1].features[self._label]
        if hasattr(feature, "names"):
            return tuple(feature.names)
        found: set[Any] = set().union(*(set(data[self._label]) for _, data in self._splits.values()))
        if not all(isinstance(value, (int, str)) for value in found):
            raise InputError("task_options.label", self._label, "it must hold classes: whole numbers or names")
        numbers = all(isinstance(value, int) for value in found)
        return tuple(str(value) for value in (range(max(found) + 1) if numbers else sorted(found)))

    def classes(self, part: str) -> np.ndarray:
        values = self._splits[part][1][self._label][:]
        if values and isinstance(values[0], str):
            number = {name: place for place, name in enumerate(self.labels)}
            values = [number[value] for value in values]
        return np.array(values, dtype=np.int64)[:MAX_ROWS]

    def names(self, part: str) -> list[str]:
        split, data = self._splits[part]
        return [f"{split}/{row}" for row in range(len(data))]

    def read(self, part: str, rows: list[int]) -> Iterator[bytes]:
        data = self._splits[part][1]
        for row in rows:
            cell = data[row][self._image]
            yield cell["bytes"] or b""
