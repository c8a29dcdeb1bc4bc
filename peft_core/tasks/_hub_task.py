"""``hub:owner/name``: any data set of the Hub whose columns the visitor names, or lets be guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft_core.records import InputError
from peft_core.tasks._contract import Task
from peft_core.tasks._hub import COMMIT, REVISION, check_id, load
from peft_core.tasks._hub_source import HubImages, HubOrigin, HubTable
from peft_core.tasks._image_task import ImageDescription, ImageTask
from peft_core.tasks._images import EVAL_NAMES, IMAGE_OPTIONS
from peft_core.tasks._stream import check_options
from peft_core.tasks._table_task import COLUMN_OPTIONS, ROW_OPTIONS, Description, TableTask
from peft_core.tasks._tables import Source

WHERE: dict[str, Any] = {"config": None, "revision": None, "split": None, "eval_split": None}
HUB_OPTIONS: dict[str, Any] = {**WHERE, **COLUMN_OPTIONS, **ROW_OPTIONS}
HUB_IMAGE_OPTIONS: dict[str, Any] = {**WHERE, "image": None, "label": None, **IMAGE_OPTIONS}
PROTOCOL = "a data set of the Hub; the score is that of the last step"


def hub_task(task: str, options: Mapping[str, Any]) -> Task:
    """The task of ``hub:owner/name``; images where the option ``image`` names their column."""
    repository = check_id(task.removeprefix("hub:"))
    if options.get("image") is not None:
        about = ImageDescription(task, repository, "hub", "see its page", PROTOCOL, HUB_IMAGE_OPTIONS)
        check_options(options, HUB_IMAGE_OPTIONS)
        return ImageTask(about, lambda: _images(repository, {**HUB_IMAGE_OPTIONS, **options}), options)
    described = Description(
        id=task,
        title=repository,
        description=f"The data set {repository} of the Hub.",
        origin="hub",
        license="see its page",
        protocol=PROTOCOL,
        options=HUB_OPTIONS,
    )
    return TableTask(described, lambda chosen: _tables(repository, chosen), options)


def _splits(repository: str, chosen: Mapping[str, Any]) -> tuple[dict[str, tuple[str, Any]], HubOrigin]:
    """The training split and, where there is one, the evaluation split: named, or by their usual names."""
    for name in WHERE:
        value = chosen[name]
        if value is not None and (not isinstance(value, str) or not REVISION.fullmatch(value) or ".." in value):
            raise InputError(f"task_options.{name}", value, "it must be a plain name")
    data, commit = load(repository, chosen["config"], chosen["revision"])
    assert COMMIT.fullmatch(commit)
    for option in ("split", "eval_split"):
        if chosen[option] is not None and chosen[option] not in data:
            raise InputError(f"task_options.{option}", chosen[option], f"the splits are {', '.join(data)}")
    train = chosen["split"] or ("train" if "train" in data else next(iter(data)))
    held = chosen["eval_split"] or next((name for name in EVAL_NAMES if name in data and name != train), None)
    found = {"train": (train, data[train])}
    if held is not None:
        found["eval"] = (held, data[held])
    return found, HubOrigin(repository, chosen["config"], commit)


def _tables(repository: str, chosen: Mapping[str, Any]) -> Mapping[str, Source]:
    found, whence = _splits(repository, chosen)
    return {part: HubTable(data, split, whence) for part, (split, data) in found.items()}


def _images(repository: str, chosen: Mapping[str, Any]) -> HubImages:
    found, whence = _splits(repository, chosen)
    label = chosen["label"] or "label"
    return HubImages(found, whence, (chosen["image"], label))
