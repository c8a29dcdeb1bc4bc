"""Where runs live on disk, and the ids that the paths are made from."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from platformdirs import user_data_path

from peft_core.records import InputError
from peft_core.runs.errors import FolderUnusable

STORAGE = "storage"
"""Of a comparison whose runs leave their checkpoints elsewhere: the file with that URL."""
_LETTERS = "abcdefghijkmnpqrstuvwxyz"
_ALPHABET = _LETTERS + "23456789"
_ID = re.compile(r"([a-z][a-z0-9]{7})(-\d{1,5})?", re.ASCII)


def home() -> Path:
    """The folder of the store, checkpoints and uploads: RANKLAB_HOME, else the user's data folder. Made if missing."""
    named = os.environ.get("RANKLAB_HOME")
    return usable(Path(named).expanduser() if named else user_data_path("ranklab"))


def usable(folder: Path) -> Path:
    """`folder`, made and writable, as an absolute path; else `FolderUnusable`."""
    try:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise FolderUnusable(
            f"The folder {folder} cannot be used ({reason}); set RANKLAB_HOME to a folder that can be written."
        ) from error


def new_id() -> str:
    """An id for a comparison: short, safe in an address and as a folder's name."""
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_ALPHABET) for _ in range(7))


def comparison_of(given: str) -> tuple[str, bool]:
    """The comparison's id in the id of a comparison or of a run, and whether it was a run's."""
    match = _ID.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        raise unknown(given)
    return match[1], match[2] is not None


def unknown(given: object) -> InputError:
    """The answer to an id that names nothing."""
    return InputError("id", given, "there is no comparison or run with this id")


def storage_of(home_folder: Path, comparison_id: str) -> str | None:
    """The URL where the checkpoints of a comparison are; None: in its own folder."""
    try:
        return (comparison_folder(home_folder, comparison_id) / STORAGE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def comparison_folder(home_folder: Path, comparison_id: str) -> Path:
    """Where a comparison keeps its log, checkpoints and adapters."""
    checked, is_run = comparison_of(comparison_id)
    if is_run:
        raise unknown(comparison_id)
    return home_folder / "comparisons" / checked


def free_bytes(folder: Path) -> int:
    """Room left on the disk of `folder`."""
    return shutil.disk_usage(folder).free
