"""One pass over the needed columns of a source: rows, labels, empty cells and lengths, in a few bytes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from peft_core.records import InputError
from peft_core.tasks import _tables
from peft_core.tasks._columns import HEAD_ROWS, Columns, Head, answer_list, empty, is_number
from peft_core.tasks._memory import remembered
from peft_core.tasks._tables import Source

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CLASSES = 1000
MAX_DISTINCT = 100_000


@dataclass
class Scan:
    """What a pass found.

    rows: records read. codes: int32 (rows,) index into `labels`, -1 where the label is empty; or None. values: float32
    (rows,) targets, NaN where there is none; or None. usable: bool (rows,), no needed cell is empty. contents: uint64
    (rows,) hashes of the texts that a model reads. groups: uint64 (rows,), rows of one group are held out together:
    those of one context, else of one content. empty: cells without a value, by column. not_numbers: how many targets
    are no finite numbers; first_bad: place and text of the first. lost: rows with an answer that does not stand in its
    context. lengths: mean and largest number of characters, by column. capped: the file goes on.
    """

    rows: int = 0
    codes: np.ndarray | None = None
    values: np.ndarray | None = None
    usable: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    contents: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    empty: dict[str, int] = field(default_factory=dict)
    not_numbers: int = 0
    first_bad: tuple[int, str] | None = None
    lost: int = 0
    lengths: dict[str, tuple[float, int]] = field(default_factory=dict)
    capped: bool = False


def head_of(source: Source) -> Head:
    """The first `HEAD_ROWS` rows of all columns."""
    columns = source.columns
    values: dict[str, list[str | None]] = {name: [] for name in columns}
    for batch in source.batches(columns):
        for name in columns:
            values[name] += batch.column(name).slice(0, HEAD_ROWS).to_pylist()
        if len(values[columns[0]]) >= HEAD_ROWS:
            break
    return {name: cells[:HEAD_ROWS] for name, cells in values.items()}


def scan(source: Source, columns: Columns) -> Scan:
    """Reads the needed columns once; remembered while the source stays as it is.

    Raises:
        InputError: a row that cannot be read, or no rows.
    """
    return remembered((source.key(), columns.kind, columns.roles), lambda: _scan(source, columns))


class _Filling:
    """One value a row, appended; memory that no row has reached is not touched."""

    def __init__(self, dtype: type) -> None:
        self._values: np.ndarray = np.empty(_tables.MAX_ROWS, dtype=dtype)
        self._count = 0

    def add(self, values: np.ndarray) -> None:
        self._values[self._count : self._count + len(values)] = values
        self._count += len(values)

    def filled(self) -> np.ndarray:
        """The rows' values; a copy of few, so that the room for many is given back."""
        values = self._values[: self._count]
        return values if 4 * self._count > len(self._values) else values.copy()


class _Labels:
    """Numbers the distinct labels in the order they come; each label is text without surrounding blanks."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def codes(self, cells: Any) -> np.ndarray:
        encoded = cells.dictionary_encode()
        known = np.empty(len(encoded.dictionary) + 1, dtype=np.int32)
        known[-1] = -1
        for place, text in enumerate(encoded.dictionary.to_pylist()):
            known[place] = -1 if empty(text) else self.numbers.setdefault(text.strip(), len(self.numbers))
        return known[encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)]


def _scan(source: Source, columns: Columns) -> Scan:
    reading = _Pass(source.name, columns)
    for batch in source.batches(columns.names):
        reading.add(batch)
    return reading.result()


class _Pass:
    """Adds up batch after batch what a `Scan` holds."""

    def __init__(self, name: str, columns: Columns) -> None:
        self.name, self.columns, roles = name, columns, dict(columns.roles)
        self.found = Scan(empty=dict.fromkeys(columns.names, 0))
        self.label, self.regression = roles.get("label"), columns.kind.endswith("regression")
        self.filled = [column for role, column in columns.roles if role != "answers"]
        self.read = [column for role, column in columns.roles if role not in ("label", "target", "answers")]
        self.labels, self.usable, self.contents = _Labels(), _Filling(np.bool_), _Filling(np.uint64)
        self.codes, self.values, self.groups = _Filling(np.int32), _Filling(np.float32), _Filling(np.uint64)
        self.totals, self.longest = dict.fromkeys(columns.names, 0), dict.fromkeys(columns.names, 0)

    def add(self, batch: pa.RecordBatch) -> None:
        fine = self._filled(batch)
        if self.regression:
            numbers = _numbers(batch.column(self.label), self.found)
            self.values.add(numbers)
            fine &= np.isfinite(numbers)
        elif self.label is not None:
            self.codes.add(self.labels.codes(batch.column(self.label)))
            if len(self.labels.numbers) > MAX_DISTINCT:
                allowed = f"it holds over {MAX_DISTINCT:,} different values; it must hold classes"
                raise InputError("task_options.label", self.label, allowed)
        if self.columns.kind == "span_qa":
            lost = _lost(batch, self.columns)
            self.found.lost += int(lost.sum())
            fine &= ~lost
            self.groups.add(content_hashes(batch, [self.columns["context"]]))
        self.usable.add(fine)
        self.contents.add(content_hashes(batch, self.read))
        self.found.rows += len(batch)

    def _filled(self, batch: pa.RecordBatch) -> np.ndarray:
        """Whether all needed cells of a row hold something; counts those that do not, and the characters."""
        import pyarrow.compute as pc

        fine = np.ones(len(batch), dtype=bool)
        for name in self.columns.names:
            cells = batch.column(name)
            if name in self.filled:
                stripped = pc.utf8_trim_whitespace(cells)
                bare = pc.or_kleene(pc.equal(stripped, ""), pc.equal(pc.utf8_lower(stripped), "nan"))
                missing = bare.fill_null(True).to_numpy(zero_copy_only=False)
                self.found.empty[name] += int(missing.sum())
                fine &= ~missing
            lengths = pc.utf8_length(cells)
            self.totals[name] += pc.sum(lengths).as_py() or 0
            self.longest[name] = max(self.longest[name], pc.max(lengths).as_py() or 0)
        return fine

    def result(self) -> Scan:
        found = self.found
        if not found.rows:
            raise InputError("task", self.name, "it holds a header and no rows")
        found.usable, found.contents = self.usable.filled(), self.contents.filled()
        found.groups = self.groups.filled() if self.columns.kind == "span_qa" else found.contents
        found.capped = found.rows >= _tables.MAX_ROWS
        found.lengths = {name: (self.totals[name] / found.rows, self.longest[name]) for name in self.columns.names}
        if self.regression:
            found.values = self.values.filled()
        elif self.label is not None:
            _sort_labels(found, self.codes.filled(), list(self.labels.numbers))
        return found


def _numbers(cells: Any, found: Scan) -> np.ndarray:
    """float32 values of a batch; what is no finite number is counted, the first with its place among the rows."""
    numbers = np.full(len(cells), np.nan, dtype=np.float32)
    for place, text in enumerate(cells.to_pylist()):
        if empty(text):
            continue
        value = float(text) if is_number(text) else np.nan
        if np.isfinite(value):
            numbers[place] = value
        else:
            found.not_numbers += 1
            found.first_bad = found.first_bad or (found.rows + place, text)
    return numbers


def content_hashes(batch: Any, columns: Sequence[str]) -> np.ndarray:
    """uint64 (rows,), the same in every process."""
    from pandas.util import hash_array

    total = np.zeros(len(batch), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for name in columns:
            cells = np.array(batch.column(name).fill_null("").to_pylist(), dtype=object)
            total = total * np.uint64(0x100000001B3) + hash_array(cells, categorize=False)
    return total


def _lost(batch: Any, columns: Columns) -> np.ndarray:
    """Whether an answer of a row is nowhere in its context."""
    cells = zip(*(batch.column(columns[role]).to_pylist() for role in ("context", "answers")), strict=True)
    return np.array([bool(a and c) and not all(text in c for text, _ in answer_list(a)) for c, a in cells], dtype=bool)


def _label_order(name: str) -> tuple[int, float, str]:
    return (0, float(name), name) if is_number(name) else (1, 0.0, name)


def _sort_labels(found: Scan, codes: np.ndarray, names: list[str]) -> None:
    """Classes in the order of their names, numbers by size."""
    order = sorted(range(len(names)), key=lambda number: _label_order(names[number]))
    new = np.empty(len(names) + 1, dtype=np.int32)
    new[order], new[-1] = np.arange(len(names)), -1
    found.codes = new.take(codes, out=codes, mode="wrap")
    found.labels = tuple(names[number] for number in order)
    found.counts = tuple(np.bincount(found.codes[found.codes >= 0], minlength=len(names)).tolist())


def label_problem(found: Scan, column: str) -> str | None:
    """Why these labels cannot be classes, in one sentence; None where they can."""
    filled, distinct = sum(found.counts), len(found.labels)
    if filled == 0:
        return f"column {column!r} has no label in any of {found.rows:,} rows"
    if distinct == 1:
        return f"all {filled:,} rows have the label {found.labels[0]!r}; there must be at least two classes"
    if distinct == filled:
        return f"every one of the {filled:,} rows has a label of its own, so nothing can be learned from them"
    if distinct > MOST_CLASSES:
        return f"column {column!r} has {distinct:,} different labels; at most {MOST_CLASSES:,} classes can be learned"
    return _written_twice(found)


def _written_twice(found: Scan) -> str | None:
    """Labels that are one number written in two ways, such as 1 and 1.0."""
    seen: dict[float, int] = {}
    for place, name in enumerate(found.labels):
        if is_number(name):
            other = seen.setdefault(float(name), place)
            if other != place:
                one, two = found.labels[other], name
                return (
                    f"labels {one!r} ({found.counts[other]:,} rows) and {two!r} ({found.counts[place]:,} rows) are the "
                    "same number written in two ways; write them alike"
                )
    return None


def problems(found: Scan, columns: Columns, drop_bad: bool, first_row: int, settled: bool = False) -> list[str]:
    """Why rows cannot be used as they are: one sentence each, with counts; empty where they can.

    drop_bad: rows with empty cells and the like are left out. first_row: what the first row is called; 2 under a
    header. settled: the classes are known from elsewhere.
    """
    sentences = []
    for name, count in found.empty.items():
        if count and not drop_bad:
            share = f"{count:,} of {found.rows:,} rows"
            sentences.append(
                f"column {name!r} is empty or NaN in {share}; fill it in, or leave those rows out with drop_bad=true"
            )
    if found.not_numbers and found.first_bad and not drop_bad:
        place, text = found.first_bad
        sentences.append(
            f"column {columns['label']!r} holds {found.not_numbers:,} values that are no finite numbers, the first "
            f"in row {place + first_row}: {text[:40]!r}"
        )
    if found.codes is not None and not settled and (sentence := label_problem(found, columns["label"])):
        sentences.append(sentence)
    if found.lost and not drop_bad:
        sentences.append(
            f"{found.lost:,} of {found.rows:,} rows have an answer that does not stand in their context; "
            "leave them out with drop_bad=true"
        )
    usable, least = int(found.usable.sum()), 1 if settled else 2
    if not sentences and usable < least:
        sentences.append(f"only {usable} of {found.rows:,} rows can be used; there must be at least {least}")
    return sentences


def notes(found: Scan, columns: Columns, drop_bad: bool) -> list[str]:
    """What is worth knowing and stops nothing. drop_bad: as for `problems`."""
    told = []
    if found.capped:
        told.append(f"only the first {found.rows:,} rows are read")
    dropped = found.rows - int(found.usable.sum())
    if dropped:
        fate = "are left out" if drop_bad else "cannot be used"
        told.append(f"{dropped:,} of {found.rows:,} rows {fate}: a cell is empty or holds no usable value")
    if found.codes is None:
        return told
    alone = [name for name, count in zip(found.labels, found.counts, strict=True) if count == 1]
    if alone:
        shown = ", ".join(repr(name) for name in alone[:3])
        many = "1 class has" if len(alone) == 1 else f"{len(alone)} classes have"
        told.append(f"{many} one row only ({shown}), so the evaluation rows have none of it")
    folded: dict[str, str] = {}
    for name in found.labels:
        other = folded.setdefault(" ".join(name.lower().split()), name)
        if other != name:
            told.append(f"labels {other!r} and {name!r} differ only by capitals or blanks and count as two classes")
    if found.counts and max(found.counts) > 0.95 * sum(found.counts):
        most = found.labels[int(np.argmax(found.counts))]
        told.append(f"{max(found.counts) / sum(found.counts):.0%} of the rows have the label {most!r}")
    if _looks_unlike_classes(found):
        told.append(f"column {columns['label']!r} has {len(found.labels):,} classes for {sum(found.counts):,} rows")
    return told


def _looks_unlike_classes(found: Scan) -> bool:
    return len(found.labels) > max(10, sum(found.counts) // 4)


@lru_cache(maxsize=256)
def class_numbers(
    names: tuple[str, ...], labels: tuple[str, ...], counts: tuple[int, ...], where: str
) -> tuple[int, ...]:
    """Class of every label found, where the names of the classes are known: by name, or by its number as text.

    Args:
        labels: those found. counts: rows of each. where: the name of the rows' source.

    Raises:
        InputError: a label that is neither.
    """
    by_name = {name: number for number, name in enumerate(names)} | {str(n): n for n in range(len(names))}
    unknown = {label: count for label, count in zip(labels, counts, strict=True) if label not in by_name}
    if unknown:
        label, known = next(iter(unknown)), ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise InputError(
            "label",
            label,
            f"{sum(unknown.values()):,} of the {sum(counts):,} labels in {where} are not known; it "
            f"must be one of {known}, or its number from 0",
        )
    return tuple(by_name[label] for label in labels)
