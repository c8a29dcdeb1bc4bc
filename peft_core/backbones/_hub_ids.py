"""What may be written for a model, checked before the file system or the network hears of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peft_core.records import InputError

MAX_PATH = 1000
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPOSITORY = re.compile(rf"{NAME}(?:/{NAME})?")
REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,98}[A-Za-z0-9_-])?")
COMMIT = re.compile(r"[0-9a-f]{40}")
WRITTEN = "a model of the Hub is written owner/name or owner/name@revision"


@dataclass(frozen=True)
class HubId:
    """A repository of the Hub. `revision`: a branch, a tag, a pull request's ref or a commit."""

    repository: str
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        """True where the revision is a commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None


def check_text(model_id: str) -> None:
    """Refuses what is neither a path nor an id: InputError."""
    if not model_id.strip():
        raise InputError("model", model_id, f"it must be an embedded model, a folder or a Hub id; {WRITTEN}")
    if not model_id.isprintable():
        raise InputError("model", model_id, f"it holds characters that cannot be seen; {WRITTEN}")
    if "://" in model_id:
        raise InputError("model", model_id, f"it must not be a URL; {WRITTEN}")
    if len(model_id) > MAX_PATH:
        raise InputError("model", model_id, f"it is {len(model_id)} characters long; {WRITTEN}")


def is_path(model_id: str) -> bool:
    """True for what can only be a path: absolute, of dots, from a home, or of more than two parts."""
    name = model_id.partition("@")[0]
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or ".." in name.split("/")


def hub_id(model_id: str) -> HubId:
    """A Hub id in its parts.

    Raises:
        InputError: it cannot be one.
    """
    check_text(model_id)
    repository, at, revision = model_id.partition("@")
    good = REPOSITORY.fullmatch(repository) and not re.search(r"\.\.|--|\.git$", repository)
    if is_path(model_id) or not good:
        raise InputError("model", model_id, f"there is no such folder, and {WRITTEN}")
    if not at:
        return HubId(repository)
    if not REVISION.fullmatch(revision) or re.search(r"\.\.|//|/\.|\.lock$", revision):
        raise InputError("model", model_id, "what follows the @ must be a branch, a tag or a commit")
    return HubId(repository, revision)
