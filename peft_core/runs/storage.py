"""Where runs leave what must outlive a node: checkpoints, adapters and their notes, at any URL that fsspec knows.

A folder (`file:///shared/ranklab` or a path), S3 and what is compatible with it (`s3://bucket/prefix`, with s3fs
installed and its own variables for the endpoint and the keys), a repository of the Hub (`hf://datasets/owner/name` or
`hf://owner/name`, with HF_TOKEN or a login on every node; every change is a commit).
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from peft_core.records import InputError

HUB = "hf://"
CONFLICTS, COMMIT_TRIES = (409, 412), 5
"""What the Hub answers to a commit while another node's is made, and how often one is tried."""


class Storage:
    """Files under a URL, named by relative paths with slashes.

    Whatever the URL's file system raises is an OSError here; a repository of the Hub that is not there, or hidden from
    this node's token, is one, too, and not a file that is missing.

    Raises:
        InputError: a URL of a kind that is not known, or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self._hub = url.startswith(HUB)
        try:
            self._files: Any
            self._files, self._root = fsspec.core.url_to_fs(url, **(_hub_options(url) if self._hub else {}))
        except (ImportError, ValueError) as error:
            said = str(error).strip().splitlines()[0].rstrip(".")
            raise InputError("RANKLAB_STORAGE", url, f"it must be a URL that fsspec can open ({said})") from None
        self._root = self._root.rstrip("/")
        if self._hub:  # lists of files name them without it
            self._root = self._root.removeprefix("models/")
        self._local = "file" in (self._files.protocol if isinstance(self._files.protocol, tuple) else ())
        # The Hub's file system keeps what it has listed in one dictionary, and is asked from several threads.
        self._alone: AbstractContextManager[Any] = threading.RLock() if self._hub else nullcontext()

    def put(self, file: Path, name: str) -> None:
        """Copy a file there; in a folder it is there whole or not at all."""
        to = self._at(name)
        if self._local:
            self._files.makedirs(str(PurePosixPath(to).parent), exist_ok=True)
            beside = f"{to}.{os.getpid()}.part"
            self._files.put_file(str(file), beside)
            Path(beside).replace(to)
        else:
            self._change("put_file", str(file), to)

    def get(self, name: str, file: Path) -> bool:
        """Copy a file here; false where there is none of that name."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            with self._alone:
                self._files.invalidate_cache()
                self._do("get_file", self._at(name), str(beside))
            beside.replace(file)
        except FileNotFoundError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def names(self, folder: str) -> list[str]:
        """The files under a folder, at any depth, by their names within it; none where it is not there."""
        within = self._at(folder)
        try:
            with self._alone:
                self._files.invalidate_cache()
                found = self._do("find", within)
        except FileNotFoundError:
            return []
        names = [str(PurePosixPath(path).relative_to(within)) for path in found]
        return sorted(name for name in names if not name.endswith(".part"))

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        with self._alone:
            if self._is_there(self._at(folder)):
                self._change("rm", self._at(folder), recursive=True)

    def drop(self, name: str) -> None:
        """Remove one file, where it is there."""
        with self._alone:
            if self._is_there(self._at(name)):
                self._change("rm_file", self._at(name))

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

    def _is_there(self, path: str) -> bool:
        self._files.invalidate_cache()
        try:
            self._do("info", path)
        except FileNotFoundError:
            return False
        return True

    def _change(self, what: str, *arguments: Any, **options: Any) -> None:
        """A change; on the Hub a commit, which is made again where another node's came between."""
        for left in reversed(range(COMMIT_TRIES)):
            try:
                with self._alone:
                    self._do(what, *arguments, **options)
                return
            except OSError as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                if not left or not self._hub or status not in CONFLICTS:
                    raise
            time.sleep(0.5 * (COMMIT_TRIES - left))

    def _do(self, what: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._files, what)(*arguments, **options)
        except FileNotFoundError as error:
            if self._hub and error.__cause__ is not None:
                raise OSError(str(error)) from error
            raise
        except OSError:
            raise
        except Exception as error:  # clients have their own kinds for a network that fails
            raise OSError(f"{type(error).__name__}: {error}") from error


def _hub_options(url: str) -> dict[str, Any]:
    """A file system of one's own with this node's token, also where a page's workers must not use it by themselves.

    Raises:
        ValueError: it names no repository.
    """
    from huggingface_hub import get_token
    from huggingface_hub.utils import parse_hf_uri

    parse_hf_uri(url)
    return {"token": get_token(), "skip_instance_cache": True}
