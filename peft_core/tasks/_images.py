"""Images by class in a folder or a zip: ``<class>/*.jpg``, or ``train/<class>/*.jpg`` beside ``test/<class>/*.jpg``.

A folder with ``train800val200.txt`` and ``test.txt`` (lines "file class number", as VTAB-1k is handed round) is read by
its lists. A zip is read in place, never unpacked; one whose members leave it, or grow out of proportion, is refused.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from peft_core.tasks._lines import refused
from peft_core.tasks._pixels import SUFFIXES
from peft_core.tasks._splits import EVAL_SHARE
from peft_core.tasks._tables import sha256

IMAGE_OPTIONS: dict[str, Any] = {"image_size": None, "eval_share": EVAL_SHARE, "split_seed": 0, "drop_bad": False}
TRAIN_NAMES = ("train", "training")
EVAL_NAMES = ("validation", "valid", "val", "dev", "eval", "test")
LISTS = (("train", "train800val200.txt"), ("eval", "test.txt"))
MAX_FILES = 1_000_000
MAX_CLASSES = 1000
MAX_FILE = 64 * 2**20
MAX_UNPACKED = 16 * 2**30
MAX_RATIO = 200
"""How many times its packed size a member may grow; ratios of photographs are near 1, of plain drawings below 100."""


class ImageSource(Protocol):
    """Images of a "train" and perhaps an "eval" part, with their classes."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def parts(self) -> tuple[str, ...]: ...

    def classes(self, part: str) -> np.ndarray:
        """int64 (images,) class of every image of a part."""
        ...

    def names(self, part: str) -> list[str]:
        """What to call each of them."""
        ...

    def read(self, part: str, rows: list[int]) -> Iterator[bytes]:
        """File contents of the given images, in order."""
        ...

    def key(self) -> tuple[Any, ...]: ...

    def origin(self) -> dict[str, Any]: ...


def is_image_folder(folder: Path) -> bool:
    """Whether any folder below holds an image; stops at the first."""
    return any(
        name.lower().endswith(SUFFIXES) for root, _, names in os.walk(folder) for name in names if Path(root) != folder
    )


class ImageFiles:
    """`ImageSource` of a folder or a zip.

    Raises:
        InputError: from every member: a zip that is none or is dangerous, no images, a single class.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.zipped = path.is_file()

    def key(self) -> tuple[Any, ...]:
        status = self.path.stat()
        folders = [] if self.zipped else [path for depth in ("*/", "*/*/") for path in self.path.glob(depth)]
        newest = max((path.stat().st_mtime_ns for path in folders), default=0)
        return str(self.path), status.st_mtime_ns, status.st_size, len(folders), newest

    def origin(self) -> dict[str, Any]:
        found: dict[str, Any] = {"file": self.name}
        if self.zipped:
            found |= {"bytes": self.path.stat().st_size, "sha256": sha256(self.path)}
        return found | {"images": {part: len(self._listed[part]) for part in self.parts}}

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._listed)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        found = {label for entries in self._listed.values() for label, _ in entries}
        ordered = sorted(found, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
        if len(ordered) < 2:
            what = f"all images are of the class {ordered[0]!r}" if ordered else "it holds no images"
            raise refused(self.path, f"{what}; put the images of every class into a folder of its own")
        if len(ordered) > MAX_CLASSES:
            raise refused(self.path, f"it has {len(ordered):,} classes; at most {MAX_CLASSES:,} can be learned")
        return tuple(ordered)

    def classes(self, part: str) -> np.ndarray:
        number = {name: place for place, name in enumerate(self.labels)}
        return np.array([number[label] for label, _ in self._listed[part]], dtype=np.int64)

    def names(self, part: str) -> list[str]:
        return [name for _, name in self._listed[part]]

    def read(self, part: str, rows: list[int]) -> Iterator[bytes]:
        entries = self._listed[part]
        with self._reader() as read:
            for row in rows:
                yield read(entries[row][1])

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        if not self.zipped:
            yield lambda name: _file(self.path / name)
            return
        with _zip(self.path) as archive:
            yield lambda name: _member(archive, name)

    @cached_property
    def _listed(self) -> dict[str, list[tuple[str, str]]]:
        """(class, file) of every image, by part."""
        names = sorted(_zip_names(self.path) if self.zipped else _folder_names(self.path))
        if lists := self._from_lists(names):
            return lists
        images = [name for name in names if name.lower().endswith(SUFFIXES)]
        if not images:
            raise refused(self.path, f"it holds no images ({', '.join(SUFFIXES)})")
        deep = [PurePosixPath(name).parts for name in images]
        top = 0
        while min(map(len, deep)) > top + 2 and len({parts[top] for parts in deep}) == 1:
            top += 1
        loose = [name for name, parts in zip(images, deep, strict=True) if len(parts) < top + 2]
        if loose:
            raise refused(self.path, f"image {loose[0]!r} is in no folder of a class ({len(loose):,} such images)")
        first = {parts[top].lower() for parts in deep}
        if first & set(TRAIN_NAMES) and first & set(EVAL_NAMES) and all(len(parts) > top + 2 for parts in deep):
            return _by_part(images, deep, top)
        return {"train": [(parts[top], name) for name, parts in zip(images, deep, strict=True)]}

    def _from_lists(self, names: list[str]) -> dict[str, list[tuple[str, str]]]:
        known = set(names)
        if not all(file in known for _, file in LISTS):
            return {}
        listed: dict[str, list[tuple[str, str]]] = {}
        with self._reader() as read:
            for part, file in LISTS:
                for number, line in enumerate(read(file).decode("utf-8", "replace").splitlines(), 1):
                    name, _, label = line.strip().rpartition(" ")
                    if name not in known or not label.isdecimal():
                        raise refused(self.path, f"line {number} of {file} names no image here: {line[:60]!r}")
                    listed.setdefault(part, []).append((label, name))
        return listed


def _file(path: Path) -> bytes:
    """Contents of a file, no more than `MAX_FILE` of them; nothing where it cannot be read, which no image is."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE)
    except OSError:
        return b""


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Contents of a member; nothing where they are damaged, which no image is."""
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return b""


def _by_part(images: list[str], deep: list[tuple[str, ...]], top: int) -> dict[str, list[tuple[str, str]]]:
    """Split folders of the archive: training, and the first that there is of `EVAL_NAMES`."""
    held = next(name for name in EVAL_NAMES if name in {parts[top].lower() for parts in deep})
    found: dict[str, list[tuple[str, str]]] = {"train": [], "eval": []}
    for name, parts in zip(images, deep, strict=True):
        folder = parts[top].lower()
        if folder in TRAIN_NAMES or folder == held:
            found["eval" if folder == held else "train"].append((parts[top + 1], name))
    return found


def _folder_names(folder: Path) -> Iterator[str]:
    """Files below a folder, relative to it; links to folders are not followed."""
    count = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            count += 1
            if count > MAX_FILES:
                raise refused(folder, f"it holds more than {MAX_FILES:,} files")
            if not name.startswith("."):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise refused(path, f"it is no zip archive, or a damaged one ({error})") from None


def _zip_names(path: Path) -> list[str]:
    """Members that are files, each of them harmless."""
    with _zip(path) as archive:
        members = archive.infolist()
    if len(members) > MAX_FILES:
        raise refused(path, f"it holds {len(members):,} files; at most {MAX_FILES:,} are read")
    total = sum(member.file_size for member in members)
    if total > MAX_UNPACKED:
        raise refused(path, f"it unpacks to {total / 2**30:.1f} GiB; at most {MAX_UNPACKED // 2**30} GiB are read")
    return [
        member.filename
        for member in members
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and _harmless(path, member)
    ]


def _harmless(path: Path, member: zipfile.ZipInfo) -> bool:
    name = member.filename
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or ":" in name[:3]:
        raise refused(path, f"its member {name[:60]!r} leads out of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise refused(path, f"its member {name[:60]!r} is a link")
    if member.flag_bits & 1:
        raise refused(path, f"its member {name[:60]!r} is encrypted")
    if member.file_size > MAX_FILE:
        raise refused(
            path,
            f"its member {name[:60]!r} has {member.file_size / 2**20:.0f} MiB; at most {MAX_FILE // 2**20} are read",
        )
    if member.file_size > 2**20 and member.file_size > MAX_RATIO * max(1, member.compress_size):
        times = member.file_size // max(1, member.compress_size)
        raise refused(path, f"its member {name[:60]!r} unpacks to {times:,} times its size, as a zip bomb does")
    return not PurePosixPath(name).name.startswith(".")
