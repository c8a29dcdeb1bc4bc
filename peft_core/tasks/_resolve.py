"""From what a visitor writes to a task: a benchmark's id, ``hub:owner/name``, a table, a folder or zip of images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from peft_core.records import InputError, upload_path
from peft_core.tasks._contract import Task
from peft_core.tasks._images import IMAGE_OPTIONS, ImageFiles, is_image_folder
from peft_core.tasks._table_task import COLUMN_OPTIONS, ROW_OPTIONS, Description, TableTask
from peft_core.tasks._tables import SUFFIXES, Source, TableFile, suffix_of

READING: dict[str, Any] = {"encoding": None, "delimiter": None, "quotes": True}
TABLE_OPTIONS: dict[str, Any] = {**COLUMN_OPTIONS, **ROW_OPTIONS, **READING}
TRAIN_NAMES = ("train", "training")
EVAL_NAMES = ("validation", "valid", "val", "dev", "eval", "test")
OWN = "data of your own; the score is that of the last step"


def origin_of(task: str) -> Literal["benchmark", "hub", "local"]:
    """Where a task that is not embedded comes from, told by its id alone; a page for strangers refuses "local"."""
    from peft_core.tasks._benchmark_table import BENCHMARKS

    if task in BENCHMARKS:
        return "benchmark"
    return "hub" if task.startswith("hub:") else "local"


def resolved(task: str, options: Mapping[str, Any]) -> Task | None:
    """The task of an id that is not embedded; None where nothing is called so.

    Raises:
        InputError: a path or a Hub id that cannot be one.
    """
    from peft_core.tasks._benchmarks import BENCHMARKS, benchmark_task

    if task in BENCHMARKS:
        return benchmark_task(BENCHMARKS[task], options)
    if task.startswith("hub:"):
        from peft_core.tasks._hub_task import hub_task

        return hub_task(task, options)
    if (kept := upload_path(task)) is not None:
        if not _exists(kept):
            raise InputError("task", task, "this file is not kept any more; upload it again")
        return local_task(task, kept, options)
    path = Path(task).expanduser()
    data = os.environ.get("RANKLAB_DATA")
    for candidate in (path, Path(data).expanduser() / path) if data else (path,):
        if _exists(candidate):
            return local_task(task, candidate.resolve(), options)
    if path.suffix or "/" in task or "\\" in task:
        raise InputError("task", task, "there is no such file or folder, and no benchmark is called so")
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def local_task(name: str, path: Path, options: Mapping[str, Any]) -> Task:
    """A table, a folder of tables (train.csv, validation.csv), or images by class in a folder or zip."""
    if path.is_file() and not suffix_of(path):
        if path.suffix.lower() != ".zip":
            raise InputError("task", path.name, f"a table ends in {', '.join(SUFFIXES)} (or .gz), images come as .zip")
        return images_task(name, path, options)
    if path.is_dir() and not tables_in(path):
        if not is_image_folder(path):
            raise InputError(
                "task",
                path.name,
                "the folder holds neither train.csv (tsv, jsonl, parquet, gz) nor a folder of images a class",
            )
        return images_task(name, path, options)
    files = tables_in(path) if path.is_dir() else {"train": path}
    named = [f"{part} {file.name}" for part, file in files.items()] if path.is_dir() else [path.name]
    about = Description(
        id=name,
        title=path.name,
        description=f"A table of your own: {', '.join(named)}.",
        origin="local",
        license="unknown",
        protocol=OWN,
        options=TABLE_OPTIONS,
    )
    return TableTask(about, partial(_tables, path), options)


def images_task(name: str, path: Path, options: Mapping[str, Any]) -> Task:
    from peft_core.tasks._image_task import ImageDescription, ImageTask

    about = ImageDescription(
        id=name, title=path.name, origin="local", license="unknown", protocol=OWN, options=IMAGE_OPTIONS
    )
    return ImageTask(about, lambda: ImageFiles(path), options)


def tables_in(folder: Path) -> dict[str, Path]:
    """ "train" and "eval" tables of a folder, by their names; without a training table, the first is trained on."""
    found = []
    for name in (*TRAIN_NAMES, *EVAL_NAMES):
        files = (folder / f"{name}{suffix}{gz}" for suffix in SUFFIXES for gz in ("", ".gz"))
        if file := next((file for file in files if file.is_file()), None):
            found.append(file)
    return dict(zip(("train", "eval"), found, strict=False))


def _tables(path: Path, options: Mapping[str, Any]) -> Mapping[str, Source]:
    if type(options["quotes"]) is not bool:
        raise InputError("task_options.quotes", options["quotes"], "it must be true or false")
    files = tables_in(path) if path.is_dir() else {"train": path}
    return {
        part: TableFile(file, options["encoding"], options["delimiter"], options["quotes"])
        for part, file in files.items()
    }
