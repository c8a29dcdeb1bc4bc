"""A folder that is there whole or not at all, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from peft_core.records import InputError


def check_target(to: Path) -> None:
    """Refuses a path that holds something already: InputError."""
    try:
        taken = (to.exists() or to.is_symlink()) and not (to.is_dir() and not any(to.iterdir()))
    except OSError as error:
        raise InputError("to", str(to), f"it cannot be looked at ({error.strerror})") from None
    if taken:
        raise InputError("to", str(to), "it must be a folder that is empty or does not exist yet")


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder to fill, beside its place, which takes its place when the block has ended well.

    Raises:
        InputError: there is something at `to`, or it cannot be written.
    """
    check_target(to)
    beside = to.parent / f".{to.name}.{secrets.token_hex(4)}.tmp"
    try:
        beside.mkdir(parents=True)
        yield beside
        readable = beside.stat().st_mode & 0o666
        for path in beside.iterdir():
            path.chmod(readable)  # some writers leave their files to the user alone
            _flush(path)
        if to.exists():
            to.rmdir()
        beside.rename(to)
        _flush(to.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise InputError("to", str(to), f"it cannot be written ({reason})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _flush(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any, *, small: bool = False) -> None:
    """Strict JSON, for people or as small as it gets."""
    layout: dict[str, Any] = {"separators": (",", ":")} if small else {"indent": 2}
    path.write_text(json.dumps(value, allow_nan=False, ensure_ascii=False, **layout), encoding="utf-8")


def read_json(path: Path, field: str, most: int = 10_000_000) -> dict[str, Any]:
    """A JSON object of at most `most` bytes.

    Raises:
        InputError: it is missing, larger, or not such an object; `field` names what was asked for.
    """
    try:
        size = path.stat().st_size
        found = json.loads(path.read_text(encoding="utf-8")) if size <= most else None
    except OSError:
        raise InputError(field, str(path), "there is no such file that can be read") from None
    except (ValueError, RecursionError):
        raise InputError(field, str(path), "the file must be JSON") from None
    if size > most:
        raise InputError(field, str(path), f"the file has {size:,} bytes; it may have {most:,}")
    if not isinstance(found, dict):
        raise InputError(field, str(path), "the file must hold a JSON object")
    return found
