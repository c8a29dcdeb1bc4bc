"""Data sets of the Hub through `datasets`: checked from their metadata before a download, pinned to a commit, cached.

Nothing here runs code of a repository: `datasets` 5 has no scripts, and a repository that needs one is refused. The
cache that `datasets` keeps is looked into first, so what was once loaded needs no network.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from peft_core.records import InputError, public_mode

if TYPE_CHECKING:
    import datasets

T = TypeVar("T")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
COMMIT = re.compile(r"[0-9a-f]{40}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
MAX_BYTES = 60 * 2**30
ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = 15.0


def check_id(repository: str) -> str:
    """``owner/name`` of ASCII letters, digits, dots, dashes and underscores; refuses everything else."""
    if not ID.fullmatch(repository) or ".." in repository or "--" in repository:
        raise InputError("task", repository, "a data set of the Hub is written hub:owner/name")
    return repository


def cache_folder() -> Path:
    """Where `datasets` keeps prepared sets."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()


def offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )


def cached(repository: str, configuration: str | None, revision: str | None) -> Path | None:
    """Folder of a set that `datasets` prepared before, named after its commit: the wanted one; for None the newest.

    None also where several configurations are there and none is named.
    """
    owner, name = repository.split("/")
    root = cache_folder() / f"{owner}___{name.lower()}"
    if not root.is_dir():
        root = cache_folder() / f"{owner}___{name}"
    found = [
        folder
        for folder in root.glob(f"{configuration or '*'}/*/*")
        if COMMIT.fullmatch(folder.name) and (folder / "dataset_info.json").is_file()
    ]
    if configuration is None and len({folder.parts[-3] for folder in found}) > 1:
        return None
    if revision is not None:
        return next((folder for folder in found if folder.name == revision), None)
    return max(found, key=lambda folder: folder.stat().st_mtime, default=None)


def load(
    repository: str, configuration: str | None, revision: str | None
) -> tuple[Mapping[str, datasets.Dataset], str]:
    """All splits of a set, and the commit they are from.

    Raises:
        InputError: what is wrong, in one sentence; nothing has been downloaded when size or content is refused.
    """
    folder = cached(repository, configuration, revision)
    if folder is not None:
        return _from_cache(folder), folder.name
    if offline():
        raise InputError("task", repository, "it is not in the cache, and the Hub is switched off (HF_HUB_OFFLINE)")
    commit = _attempted(repository, lambda: _metadata(repository, revision))
    if (folder := cached(repository, configuration, commit)) is not None:
        return _from_cache(folder), commit
    return _attempted(repository, lambda: _download(repository, configuration, commit)), commit


def _from_cache(folder: Path) -> Mapping[str, datasets.Dataset]:
    import json

    import datasets

    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    found = {}
    for split in info.get("splits", {}):
        pattern = re.compile(rf".*-{re.escape(split)}(-\d+-of-\d+)?\.arrow")
        files = sorted(file for file in folder.glob("*.arrow") if pattern.fullmatch(file.name))
        found[split] = datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
    return found


def _token() -> bool | None:
    """No login of the installation's owner for strangers; else the stored one."""
    return False if public_mode() else None


def _metadata(repository: str, revision: str | None) -> str:
    """The commit of a revision, after a look at what the repository holds and how large it is."""
    from huggingface_hub import HfApi

    info = HfApi(token=_token()).dataset_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT)
    files = info.siblings or []
    script = f"{repository.split('/')[1]}.py"
    if any(file.rfilename == script for file in files) and not any(
        file.rfilename.endswith((".parquet", ".csv", ".jsonl", ".json", ".tar", ".arrow")) for file in files
    ):
        raise InputError(
            "task", repository, f"its rows come from a script ({script}), and code from the Hub is never run"
        )
    total = sum(file.size or 0 for file in files)
    if total > MAX_BYTES:
        raise InputError(
            "task", repository, f"it holds {total / 2**30:,.0f} GiB; at most {MAX_BYTES // 2**30} GiB are downloaded"
        )
    if not info.sha:
        raise InputError("task", repository, "the Hub gives no commit for it")
    return info.sha


def _download(repository: str, configuration: str | None, commit: str) -> Mapping[str, datasets.Dataset]:
    import datasets

    found: Mapping[str, datasets.Dataset] = datasets.load_dataset(
        repository, configuration, revision=commit, token=_token()
    )
    return found


def _attempted(repository: str, what: Callable[[], T]) -> T:
    """What a call gives, tried `ATTEMPTS` times where the Hub is slow, busy or breaks off; else one sentence."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return what()
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - the clients raise errors of four libraries; each becomes a sentence
            sentence, again = _sentence(error)
            if not again or attempt == ATTEMPTS:
                raise InputError("task", repository, sentence) from None
            time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _sentence(error: Exception) -> tuple[str, bool]:
    """What went wrong, and whether another attempt may help."""
    from huggingface_hub import errors

    causes = _causes(error)
    answers = (getattr(cause, "response", None) for cause in causes)
    status = next((answer.status_code for answer in answers if answer is not None), None)
    names = " ".join(type(cause).__name__ for cause in causes)
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return "it is gated: accept its terms on the Hub and log in (hf auth login), then start again", False
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return "the Hub has no such revision of it", False
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes) or status in (401, 404):
        return "the Hub has no such data set, or it is private (then log in: hf auth login)", False
    if status == 403:
        return "the Hub refuses access to it (403)", False
    if status == 429:
        return f"the Hub is busy (429) and was asked {ATTEMPTS} times; try again in a few minutes", True
    if status is not None and status >= 500:
        return f"the Hub answers with error {status} and was asked {ATTEMPTS} times; try again later", True
    if (
        "Timeout" in names
        or "Connect" in names
        or "RemoteProtocol" in names
        or "ReadError" in names
        or "Consistency" in names
    ):
        return (
            f"the Hub cannot be reached, or the transfer broke off {ATTEMPTS} times; what is cached still works",
            True,
        )
    first = str(error).strip().splitlines()
    return f"it cannot be loaded ({type(error).__name__}: {first[0][:200] if first else ''})", False
