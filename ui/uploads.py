"""Files of visitors: streamed to disk, one folder a content, outside of everything that is served."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import threading
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

from peft_core.records import InputError
from peft_core.runs.errors import DiskFull, Refused

MIB = 2**20
FILE_MIB, TOTAL_MIB = 1024, 10 * 1024
FREE = 200 * MIB
"""Room that an upload leaves on the disk."""
PIECE = MIB
TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
SUFFIXES = (*TABLES, *(f"{kind}.gz" for kind in TABLES), ".zip")
LONGEST_TITLE = 60
PARTIAL = ".partial-"


def limit_of(name: str, default: float) -> int:
    """Bytes of a limit that an environment variable gives in MiB."""
    text = os.environ.get(name, "").strip()
    try:
        size = float(text) if text else float(default)
    except ValueError:
        size = -1.0
    if not 0 < size < 2**40:
        raise InputError(name, text, "it must be a number of MiB above 0")
    return int(size * MIB)


class Uploads:
    """The folder of uploads. file_limit, total_limit: bytes; by default RANKLAB_UPLOAD_MIB, RANKLAB_UPLOADS_MIB."""

    def __init__(self, folder: Path, file_limit: int | None = None, total_limit: int | None = None) -> None:
        self.folder = folder.resolve()
        self.file_limit = file_limit if file_limit is not None else limit_of("RANKLAB_UPLOAD_MIB", FILE_MIB)
        self._settling = threading.Lock()
        self.total_limit = total_limit if total_limit is not None else limit_of("RANKLAB_UPLOADS_MIB", TOTAL_MIB)

    def sweep(self) -> None:
        """Remove what a server that was killed left half written. Only for the one server of a folder."""
        for folder in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def task_of(self, path: Path) -> str:
        """What a kept file is called as a task."""
        return str(path)

    def room(self) -> Path:
        """The folder of whoever sends now."""
        return self.folder

    def holds(self, task: str) -> bool:
        """Whether a task is the path of an uploaded file, and nothing above or beside."""
        try:
            path = Path(task)
            inside = path.is_absolute() and path.resolve() == path and path.parent.parent == self.folder
            return inside and not path.parent.name.startswith(PARTIAL) and path.is_file()
        except (OSError, ValueError, RuntimeError):
            return False

    async def receive(self, name: str, pieces: AsyncIterator[bytes], announced: int | None = None) -> Path:
        """Keep a file that arrives piece by piece; the path of it, or of an equal one that was there.

        Args:
            name: as the client calls it; only its ending and its letters are used.
            announced: bytes, where the client says so.

        Raises:
            InputError: an ending that no table has, too large, or empty. Refused: no room. Nothing is left then.
        """
        title, suffix = _title(name)
        self._check_size(name, announced or 0)
        try:
            partial = await asyncio.to_thread(self._begin, announced or 0)
            try:
                digest = await self._write(partial / "data", name, pieces)
                return await asyncio.to_thread(self._settled, partial, digest, title, suffix)
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True))
        except OSError as error:
            raise _refusal(error) from error

    def _check_size(self, name: str, size: int) -> None:
        if size > self.file_limit:
            raise InputError("task", name, f"the file is larger than {mib(self.file_limit)}, the most that is taken")

    def _begin(self, announced: int) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.check_room(announced)
        if shutil.disk_usage(self.folder).free - announced < FREE:
            raise DiskFull("The disk is too full for this file.")
        return Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.folder))

    def check_room(self, size: int, counted: int = 0) -> None:
        """Raises `Refused` where so many bytes more are too many. counted: of them, those in the folder already."""
        if size_of(self.folder) + size - counted > self.total_limit:
            raise Refused(f"The uploads here fill the {mib(self.total_limit)} that are set aside for them.")

    async def _write(self, target: Path, name: str, pieces: AsyncIterator[bytes]) -> str:
        digest, size, waiting = hashlib.sha256(), 0, bytearray()
        with target.open("wb") as file:

            def put(data: bytes) -> None:
                if shutil.disk_usage(self.folder).free - len(data) < FREE:
                    raise DiskFull("The disk is too full for this file.")
                digest.update(data)
                file.write(data)

            async for piece in pieces:
                size += len(piece)
                self._check_size(name, size)
                waiting += piece
                if len(waiting) >= PIECE:
                    await asyncio.to_thread(put, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(put, bytes(waiting))
        if not size:
            raise InputError("task", name, "the file is empty")
        return digest.hexdigest()

    def _settled(self, partial: Path, digest: str, title: str, suffix: str) -> Path:
        with self._settling:
            return self._settle(partial, digest, title, suffix)

    def _settle(self, partial: Path, digest: str, title: str, suffix: str) -> Path:
        """Move a whole file to its place, unless an equal one of this ending is there."""
        size = (partial / "data").stat().st_size
        self.check_room(size, counted=size)
        folder = self.room() / digest[:40]
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(suffix))
        there = [path for path in there if _title(path.name)[1] == suffix]
        if there:
            return there[0]
        target = folder / f"{title}{suffix}"
        (partial / "data").replace(target)
        with contextlib.suppress(OSError):
            target.chmod(0o600)
        return target


def _title(name: str) -> tuple[str, str]:
    """A harmless file name without its ending, and the ending.

    Raises:
        InputError: an ending that no table and no archive of images has.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    suffix = max((end for end in SUFFIXES if last.lower().endswith(end)), key=len, default=None)
    if suffix is None:
        allowed = f"a table ends in {', '.join(TABLES)} (or .gz), images come as .zip"
        raise InputError("task", last, allowed)
    title = re.sub(r"[^\w.-]+", "_", last[: -len(suffix)])[:LONGEST_TITLE].strip("._-")
    return title or "table", suffix


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder and below."""
    found = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another visitor's upload has just ended
            found += file.stat().st_size if file.is_file() else 0
    return found


def mib(size: float) -> str:
    return f"{size / MIB:,.0f} MiB" if size >= MIB else f"{size:,} bytes"


def _refusal(error: OSError) -> Refused:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk is full, so the file was not kept.")
    return Refused(f"The file could not be kept ({error.strerror or error}).")
