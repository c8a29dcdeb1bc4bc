"""Local tables (CSV, TSV, JSONL, Parquet; gzip too) as a stream of batches in which every value is text.

Numbers, dates and labels stay as they are written, so that "1" and "1.0" remain two things until someone says
otherwise. At most `MAX_ROWS` rows of a file are read, `BATCH` at a time.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from peft_core.records import InputError
from peft_core.tasks._lines import GZIP, MAX_LINE, PARQUET, BadText, Blocks, first_bytes, refused

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS = 10_000_000
MAX_COLUMNS = 1000
BATCH = 10_000
MAX_ROW_GROUP = 2**30
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


class Source(Protocol):
    """Rows of text columns that can be read again and again, in one order."""

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def first_row(self) -> int:
        """What people call the first row: 2 under a header line."""
        ...

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes of a column whose values are their numbers, where the source says so."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, null where a value is missing."""
        ...

    def key(self) -> tuple[Any, ...]:
        """Changes when the rows change."""
        ...

    def origin(self) -> dict[str, Any]:
        """Where the rows come from: what a result keeps to find the same ones again."""
        ...


def suffix_of(path: Path) -> str:
    """``.csv`` of ``x.csv`` and of ``x.csv.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def as_text(value: Any) -> str | None:
    """A JSON value as it would be written; None where it is missing or not a number (NaN)."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if value != value else repr(value)
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False, default=str)


def text_array(array: pa.Array) -> pa.Array:
    """Any Arrow array as strings; binary data as nulls."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_dictionary(kind):
        return text_array(array.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.nulls(len(array), pa.string())
    return pa.array([as_text(value) for value in array.to_pylist()], pa.string())


def capped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The first `MAX_ROWS` rows."""
    left = MAX_ROWS
    for batch in batches:
        yield batch.slice(0, left)
        left -= len(batch)
        if left <= 0:
            return


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class TableFile:
    """A local table.

    encoding, delimiter, quotes: how text is read; None: by its first bytes, by its header line.
    """

    path: Path
    encoding: str | None = None
    delimiter: str | None = None
    quotes: bool = True
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    def key(self) -> tuple[Any, ...]:
        stat = self.path.stat()
        return str(self.path), stat.st_mtime_ns, stat.st_size, self.encoding, self.delimiter, self.quotes

    def origin(self) -> dict[str, Any]:
        return {"file": self.name, "bytes": self.path.stat().st_size, "sha256": sha256(self.path)}

    @property
    def first_row(self) -> int:
        return 2 if self.format == "csv" else 1

    @cached_property
    def format(self) -> str:
        suffix = suffix_of(self.path)
        if suffix == ".parquet":
            return "parquet"
        return "jsonl" if suffix in (".jsonl", ".ndjson", ".json") else "csv"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns.

        Raises:
            InputError: no header, more than `MAX_COLUMNS`, a name that is empty or there twice.
        """
        names = {"csv": self._csv_header, "jsonl": self._json_keys, "parquet": self._parquet_names}[self.format]()
        if len(names) > MAX_COLUMNS:
            raise refused(self.path, f"it has {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
        empty = [place for place, name in enumerate(names, 1) if not name.strip()]
        if empty:
            raise refused(
                self.path, f"{len(empty)} of {len(names)} columns have no name, the first of them column {empty[0]}"
            )
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            times = names.count(doubled[0])
            raise refused(
                self.path, f"column {doubled[0]!r} is there {times} times; every column must have its own name"
            )
        return tuple(names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Chosen columns of all rows; no more than `MAX_ROWS`.

        Raises:
            InputError: the first row that cannot be read, by its number (a header line is row 1).
        """
        read = {"csv": self._csv_batches, "jsonl": self._json_batches, "parquet": self._parquet_batches}[self.format]
        yield from capped(read(tuple(columns)))

    def _delimiter(self, header: str) -> str:
        if self.delimiter is not None:
            if self.delimiter not in DELIMITERS:
                raise InputError("task_options.delimiter", self.delimiter, f"it must be one of {', '.join(DELIMITERS)}")
            return DELIMITERS[self.delimiter]
        if suffix_of(self.path) == ".tsv":
            return "\t"
        return max(",;\t|", key=lambda mark: (header.count(mark), mark == ","))

    def _texts(self) -> Iterator[str]:
        """Blocks of whole CSV records; a block that ends inside a quoted field is given out with the next one."""
        carried, marks = "", 0
        for block in Blocks(self.path, self.encoding):
            carried += block
            marks += block.count('"') if self.quotes else 0
            if marks % 2 == 0 or len(carried) > MAX_LINE:
                yield carried
                carried, marks = "", 0
        if carried:
            yield carried

    def _reader(self, text: str, delimiter: str) -> Iterator[list[str]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting)
        return filter(None, reader)

    def _csv_header(self) -> list[str]:
        try:
            text = next(self._texts(), "")
            delimiter = self._delimiter(text[: text.find("\n")])
            header = [name.strip() for name in next(self._reader(text, delimiter), [])]
        except BadText as error:
            raise refused(self.path, f"row {1 + error.lines}: {error}") from None
        except csv.Error as error:
            raise refused(self.path, f"row 1: {_csv_sentence(str(error))}") from None
        if not header:
            raise refused(self.path, "it holds no header line and no rows")
        return header

    def _csv_batches(self, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        read, delimiter = 0, ""
        try:
            for text in self._texts():
                delimiter = delimiter or self._delimiter(text[: text.find("\n")])
                for batch in self._csv_parsed(text, delimiter, columns, read):
                    read += len(batch) + (read == 0)
                    yield batch
                read = max(read, 1)
        except BadText as error:
            raise refused(self.path, f"row {read + 1 + error.lines}: {error}") from None

    def _csv_parsed(self, text: str, delimiter: str, columns: tuple[str, ...], read: int) -> Iterator[pa.RecordBatch]:
        """Rows of a block of records; read: records before it, the header among them.

        Without a quote in it a block is cut at every delimiter, which pyarrow does fastest; else Python's strict reader
        decides, and it names what is wrong.
        """
        import pyarrow as pa

        if read and (not self.quotes or '"' not in text):
            try:
                yield from self._csv_plain(text, delimiter, columns)
                return
            except pa.ArrowInvalid:
                pass
        places = [self.columns.index(name) for name in columns]
        records = self._reader(text, delimiter)
        if not read:
            next(records, None)
            read = 1
        while batch := self._next_records(records, read):
            turned = list(zip(*batch, strict=True))
            yield pa.RecordBatch.from_arrays([pa.array(turned[place], pa.string()) for place in places], list(columns))
            read += len(batch)

    def _csv_plain(self, text: str, delimiter: str, columns: tuple[str, ...]) -> list[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.csv as plain

        data = text.encode()
        table = plain.read_csv(
            pa.py_buffer(data),
            plain.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=list(self.columns)),
            plain.ParseOptions(delimiter=delimiter, quote_char=False),
            plain.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=list(columns),
                strings_can_be_null=False,
            ),
        )
        return table.combine_chunks().to_batches()

    def _next_records(self, records: Iterator[list[str]], read: int) -> list[list[str]]:
        batch: list[list[str]] = []
        try:
            for record in islice(records, BATCH):
                if len(record) != len(self.columns):
                    many = f"{len(record)} field{'s' * (len(record) != 1)}"
                    raise refused(
                        self.path,
                        f"row {read + len(batch) + 1} has {many} and the header has {len(self.columns)}: a delimiter "
                        "in a text needs quotes round the text, and every quote must be closed",
                    )
                batch.append(record)
        except csv.Error as error:
            raise refused(self.path, f"row {read + len(batch) + 1}: {_csv_sentence(str(error))}") from None
        return batch

    def _objects(self) -> Iterator[dict[str, Any]]:
        number = 1
        try:
            for block in Blocks(self.path, self.encoding):
                for line in block.split("\n"):
                    if line.strip():
                        yield _object(line)
                        number += 1
        except BadText as error:
            raise refused(self.path, f"row {number + error.lines}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise refused(self.path, f"row {number} is no valid JSON ({error})") from None

    def _json_keys(self) -> list[str]:
        keys: dict[str, None] = {}
        for entry in islice(self._objects(), 1000):
            keys |= dict.fromkeys(entry)
        if not keys:
            raise refused(self.path, "it holds no rows")
        return list(keys)

    def _json_batches(self, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        objects, read = self._objects(), 0
        while batch := list(islice(objects, BATCH)):
            cells = [[as_text(entry.get(name)) for entry in batch] for name in columns]
            try:
                arrays = [pa.array(column, pa.string()) for column in cells]
            except UnicodeEncodeError:
                row = next(place for place, texts in enumerate(zip(*cells, strict=True)) if not all(map(_whole, texts)))
                raise refused(self.path, f"row {read + row + 1} holds half of a surrogate pair: no character") from None
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            read += len(batch)

    def _parquet(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except pa.ArrowInvalid:
            raise refused(self.path, self._no_parquet()) from None

    def _no_parquet(self) -> str:
        """Why pyarrow does not read it."""
        if not first_bytes(self.path, parquet=True).startswith(PARQUET):
            return "it is no Parquet file, whatever its name"
        with self.path.open("rb") as stream:
            packed = stream.read(len(GZIP)) == GZIP
        return "its gzip holds a Parquet file; unpack it" if packed else "it is damaged or cut off"

    def _parquet_names(self) -> list[str]:
        return list(self._parquet().schema_arrow.names)

    def _parquet_batches(self, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        file = self._parquet()
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            chunks = [group.column(place) for place in range(group.num_columns)]
            size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
            if size > MAX_ROW_GROUP:
                raise refused(
                    self.path,
                    f"its row group {number + 1} holds {size / 2**30:.1f} GiB; write it in groups of at most 1 GiB",
                )
        try:
            for batch in file.iter_batches(batch_size=BATCH, columns=list(columns)):
                arrays = [text_array(batch.column(name)) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise refused(self.path, f"it is damaged ({str(error).splitlines()[0][:120]})") from None


def _whole(text: str | None) -> bool:
    return text is None or not any("\ud800" <= character <= "\udfff" for character in text)


def _object(line: str) -> dict[str, Any]:
    value = json.loads(line, parse_constant=lambda _: None, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise BadText('it is no JSON object; write one object a line, such as {"text": "...", "label": "..."}', 0)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadText(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice", 0)
    return found


def _csv_sentence(message: str) -> str:
    if "unexpected end of data" in message:
        return "a quote that opens here is not closed before the file ends"
    if "field limit" in message:
        return (
            f"a field is longer than {csv.field_size_limit():,} characters: a quote that opens here is not closed, or "
            "the text is too long to train on"
        )
    if "expected after" in message:
        return "a quote is closed in the middle of a field; a quote inside a quoted text is written twice"
    return message
