"""A local file as blocks of text, in bounded memory: what the file really is, how it is decoded, or why it cannot be.

A file is judged by its first bytes, never by its name alone: a gzip named .csv is unpacked as it is read, and an Excel
workbook named .csv is refused in one sentence.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from peft_core.records import InputError

BLOCK = 2**21
MAX_LINE = 8 * 2**20
"""Characters of one line; a longer one is not read."""
SAMPLE = 4096
ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252")
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"\xd0\xcf\x11\xe0", "it is an old Excel or Word file; save it as CSV"),
    (b"%PDF", "it is a PDF file; a table must be CSV, TSV, JSONL or Parquet"),
    (b"SQLite format 3", "it is an SQLite database; export the table as CSV"),
    (b"BZh", "it is compressed with bzip2; only gzip is read"),
    (b"\xfd7zXZ", "it is compressed with xz; only gzip is read"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; only gzip is read"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive; unpack it"),
    (GZIP, "it is a gzip inside a gzip; unpack it once"),
    (PARQUET, "it is a Parquet file; name it .parquet"),
)


class BadText(Exception):
    """A line that cannot be read, so many lines after those that were given out; whoever counts rows adds them up."""

    def __init__(self, why: str, lines: int) -> None:
        super().__init__(why)
        self.lines = lines


def refused(path: Path, why: str) -> InputError:
    return InputError("task", path.name, why)


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where it is a gzip, whatever its name."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise refused(path, f"it cannot be opened ({error.strerror})") from None
    if raw.read(2) == GZIP:
        raw.seek(0)
        return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]
    raw.seek(0)
    return raw


def _encoding(sample: bytes) -> str:
    """By byte order mark; else by where the zero bytes of UTF-16 stand; else UTF-8."""
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    half = max(1, len(sample) // 2)
    even, odd = sample[0::2].count(0) / half, sample[1::2].count(0) / half
    if odd > 0.3 and even < 0.05:
        return "utf-16-le"
    if even > 0.3 and odd < 0.05:
        return "utf-16-be"
    return "utf-8"


def _zip_sentence(sample: bytes) -> str:
    if b"xl/" in sample or b"[Content_Types]" in sample:
        return "it is an Excel workbook, whatever its name; save it as CSV"
    return "it is a zip archive; unpack it, or name it .zip if it holds a folder of images"


def first_bytes(path: Path, parquet: bool = False) -> bytes:
    """Up to `SAMPLE` bytes of what is in the file, unpacked; an InputError where that is no text (nor Parquet)."""
    with opened(path) as stream:
        try:
            sample = stream.read(SAMPLE)
        except (OSError, EOFError) as error:
            raise refused(path, f"its gzip is damaged ({error})") from None
    if not sample:
        raise refused(path, "the file is empty")
    if sample.startswith(b"PK\x03\x04"):
        raise refused(path, _zip_sentence(sample))
    for magic, why in _NO_TEXT:
        if sample.startswith(magic) and not (parquet and magic == PARQUET):
            raise refused(path, why)
    return sample


class Blocks:
    """Iterates over a text file in pieces of about `BLOCK` characters, each of whole lines.

    Args:
        encoding: one of `ENCODINGS`; None: by the byte order mark, UTF-16 by its zero bytes, else UTF-8.

    Raises:
        InputError: what the file holds is no text. While iterating, `BadText`: a line too long, undecodable, or with
            a zero byte.
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        if encoding is not None and encoding not in ENCODINGS:
            raise InputError("task_options.encoding", encoding, f"it must be one of {', '.join(ENCODINGS)}")
        sample = first_bytes(path)
        self.path, self.encoding = path, encoding or _encoding(sample)
        self._old_line_ends = b"\r" in sample and b"\n" not in sample

    def __iter__(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        rest = ""
        with opened(self.path) as stream:
            while True:
                data = self._read(stream)
                rest += self._decoded(decoder, data, rest)
                if self._old_line_ends:
                    rest = rest.replace("\r", "\n")
                if "\0" in rest:
                    before = rest[: rest.index("\0")].count("\n")
                    raise BadText("it holds a zero byte (NUL): the file is damaged, or no text", before)
                end = len(rest) if not data else rest.rfind("\n") + 1
                if end:
                    yield rest[:end]
                    rest = rest[end:]
                if not data:
                    return
                if len(rest) > MAX_LINE:
                    raise BadText(f"its line is longer than {MAX_LINE:,} characters: no table of short texts", 0)

    def _read(self, stream: BinaryIO) -> bytes:
        try:
            return stream.read(BLOCK)
        except (EOFError, OSError, zlib.error) as error:
            raise BadText(f"the gzip is damaged or cut off near here ({error})", 0) from None

    def _decoded(self, decoder: codecs.IncrementalDecoder, data: bytes, rest: str) -> str:
        try:
            return decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            name = self.encoding.upper().removesuffix("-SIG")
            good = error.object[: error.start].decode(self.encoding, "ignore")
            raise BadText(
                f"byte 0x{error.object[error.start]:02x} is not {name}; save the file as UTF-8, or give its encoding "
                f"({', '.join(ENCODINGS[1:])})",
                (rest + good).count("\n"),
            ) from None
        except UnicodeError:
            raise BadText(f"the bytes from about here on are not {self.encoding.upper()}", 0) from None
