"""Where runs leave what must outlive a node: checkpoints, adapters and their notes, at any URL that fsspec knows.

A folder (`file:///shared/ranklab` or a path), S3 and what is compatible with it (`s3://bucket/prefix`, with s3fs
installed and its own variables for the endpoint and the keys), the Hub (`hf://buckets/...` or a repository).
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from peft_core.records import InputError


class Storage:
    """Files under a URL, named by relative paths with slashes.

    Raises:
        InputError: a URL of a kind that is not known, or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._files: Any
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            said = str(error).strip().splitlines()[0].rstrip(".")
            raise InputError("RANKLAB_STORAGE", url, f"it must be a URL that fsspec can open ({said})") from None
        self._root = self._root.rstrip("/")
        self._local = "file" in (self._files.protocol if isinstance(self._files.protocol, tuple) else ())

    def put(self, file: Path, name: str) -> None:
        """Copy a file there; in a folder it is there whole or not at all."""
        to = self._at(name)
        if self._local:
            self._files.makedirs(str(PurePosixPath(to).parent), exist_ok=True)
            beside = f"{to}.{os.getpid()}.part"
            self._files.put_file(str(file), beside)
            Path(beside).replace(to)
        else:
            self._files.put_file(str(file), to)

    def get(self, name: str, file: Path) -> bool:
        """Copy a file here; false where there is none of that name."""
        self._files.invalidate_cache()
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            self._files.get_file(self._at(name), str(beside))
            beside.replace(file)
        except FileNotFoundError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def names(self, folder: str) -> list[str]:
        """The files under a folder, at any depth, by their names within it; none where it is not there."""
        self._files.invalidate_cache()
        within = self._at(folder)
        try:
            found = self._files.find(within)
        except FileNotFoundError:
            return []
        names = [str(PurePosixPath(path).relative_to(within)) for path in found]
        return sorted(name for name in names if not name.endswith(".part"))

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        self._files.invalidate_cache()
        if self._files.exists(self._at(folder)):
            self._files.rm(self._at(folder), recursive=True)

    def drop(self, name: str) -> None:
        """Remove one file, where it is there."""
        if self._files.exists(self._at(name)):
            self._files.rm_file(self._at(name))

    def put_folder(self, folder: Path, name: str, *, without: tuple[str, ...] = ()) -> None:
        """Copy all files of a folder there, but for those under the names in `without`."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = file.relative_to(folder)
            if inside.parts[0] not in without and not file.name.startswith("."):
                self.put(file, f"{name}/{inside.as_posix()}")

    def get_folder(self, name: str, folder: Path, *, without: tuple[str, ...] = ()) -> None:
        """Copy all files of a folder here, but for those under the names in `without`."""
        for inside in self.names(name):
            if inside.split("/")[0] not in without:
                self.get(f"{name}/{inside}", folder / inside)

    def _at(self, name: str) -> str:
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"no name of a file in the storage: {name}")
        return f"{self._root}/{name}"
