"""Copies of Hub models on this disk, in the folders that the Hub's own client keeps. Cheap: no network, few imports."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from peft_core.backbones._hub_ids import COMMIT, HubId

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LEFTOVER_SECONDS = 3600.0
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


_local_only: ContextVar[bool] = ContextVar("_local_only", default=False)


@contextmanager
def local_only() -> Iterator[None]:
    """Within it no model is asked for over a network, and a config in the cache is enough to know one."""
    before = _local_only.set(True)
    try:
        yield
    finally:
        _local_only.reset(before)


def stays_local() -> bool:
    """True within `local_only`."""
    return _local_only.get()


def offline() -> bool:
    """True where ``HF_HUB_OFFLINE`` switches the Hub off."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def cached_commit(hub: HubId) -> str | None:
    """The commit that a revision stood for when it was last downloaded."""
    if hub.pinned:
        return hub.revision
    try:
        commit = (_repository(hub) / "refs" / hub.revision).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def snapshot(hub: HubId, commit: str) -> Path:
    """The folder for a commit's files, whether there are any or not."""
    return _repository(hub) / "snapshots" / commit


def cached_config(hub: HubId) -> Path | None:
    """The folder of a revision's copy that has its config, with or without weights; named after the commit.

    Before weights were downloaded it is not noted which commit the main revision is: the newest copy is taken for it.
    """
    commit = cached_commit(hub)
    if commit is not None:
        found = [snapshot(hub, commit)]
    else:
        found = list((_repository(hub) / "snapshots").glob("*")) if hub == HubId(hub.repository) else []
    found = [folder for folder in found if (folder / "config.json").is_file()]
    return max(found, key=lambda folder: (folder / "config.json").lstat().st_mtime, default=None)


def cached_model(hub: HubId) -> Path | None:
    """The folder of a revision's copy that has its config and all of its weights; named after the commit."""
    commit = cached_commit(hub)
    if commit is None or not (folder := snapshot(hub, commit)).joinpath("config.json").is_file():
        return None
    if (folder / WEIGHTS).is_file():
        return folder
    try:
        shards: Iterable[str] = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        whole = all(SHARD.fullmatch(shard) and (folder / shard).is_file() for shard in shards)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return folder if whole else None


def note_commit(hub: HubId, commit: str) -> None:
    """Remember which commit a revision stands for, so that its copy is found without the Hub."""
    if hub.pinned:
        return
    file = _repository(hub) / "refs" / hub.revision
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    part.write_text(commit, encoding="utf-8")
    part.replace(file)


def remove_leftovers(hub: HubId) -> None:
    """Remove what downloads left that were ended in the middle: parts that nobody has written to for an hour."""
    for part in (_repository(hub) / "blobs").glob("*.incomplete"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > LEFTOVER_SECONDS:
                part.unlink()


def cache_folder() -> Path:
    """Where the Hub's client keeps its copies."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def _repository(hub: HubId) -> Path:
    return cache_folder() / "--".join(("models", *hub.repository.split("/")))
