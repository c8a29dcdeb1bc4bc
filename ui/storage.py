"""Where a server keeps its store, and whether that outlives a restart.

A Space has a disk of its own only where its owner added one: it is mounted on /data. A container keeps what lies on a
mounted volume. Everything else there is gone with the next restart: the log says so, and on a Space the page.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from peft_core.runs.errors import FolderUnusable
from peft_core.runs.folders import home, usable

SPACE_DISK = Path("/data")
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
GONE = "History will not outlive a restart: "
Mounted = Callable[[Path], bool]


def on_space() -> bool:
    return bool(os.environ.get("SPACE_ID"))


def in_container() -> bool:
    return any(mark.exists() for mark in CONTAINER_MARKS)


def choose_home(mounted: Mounted = os.path.ismount) -> tuple[Path, str]:
    """The folder of the store, and a sentence where it will not last, else nothing.

    On a Space whose folder cannot be written a temporary one takes its place; elsewhere that ends the start.

    Raises:
        FolderUnusable: the folder cannot be written.
    """
    if not on_space():
        folder = home()
        kept = not in_container() or lasts(folder, mounted)
        return folder, "" if kept else GONE + "no volume holds the folder for runs."
    try:
        named = os.environ.get("RANKLAB_HOME")
        folder = usable(SPACE_DISK / "ranklab") if not named and mounted(SPACE_DISK) else home()
    except FolderUnusable:
        folder = usable(Path(tempfile.mkdtemp(prefix="ranklab-")))
        return folder, GONE + "the folder for runs cannot be written, so a temporary one is used."
    return folder, "" if lasts(folder, mounted) else GONE + "this Space has no disk or bucket of its own."


def lasts(folder: Path, mounted: Mounted = os.path.ismount) -> bool:
    """Whether a folder lies on something that is mounted below the root, and not in memory."""
    inside = [folder, *folder.parents][:-1]
    return any(mounted(place) for place in inside) and not _in_memory(folder)


def _in_memory(folder: Path) -> bool:
    """Whether the file system of a folder is kept in memory, as /proc/mounts says."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return False
    kinds = {Path(line.split()[1]): line.split()[2] for line in lines}
    place = next((place for place in [folder, *folder.parents] if place in kinds), None)
    return place is not None and kinds[place] in ("tmpfs", "ramfs")
