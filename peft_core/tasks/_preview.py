"""What is in a table or a set of images, before anything is trained: for a form that asks if a guess is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peft_core.records import InputError
from peft_core.tasks._contract import Task, TaskInfo
from peft_core.tasks._image_task import ImageTask, broken
from peft_core.tasks._options import described_options
from peft_core.tasks._scan import Scan, notes, problems
from peft_core.tasks._table_task import TableTask

EXAMPLES = 5
EXAMPLE_LENGTH = 300
CHECKED_IMAGES = 200


@dataclass(frozen=True)
class Preview:
    """What was found and guessed.

    columns: all names. roles: column of every role; guessed: roles (and ``kind``) that nobody gave. rows: records read.
    labels: rows by label. examples: first rows, cells cut to `EXAMPLE_LENGTH` characters. lengths: mean and largest
    number of characters, by column. problems: sentences, each of which stops a start. notes: sentences that do not.
    info: of the task; None where a problem stops it. options: name, type, default, choices and help of what it takes.
    """

    kind: str | None = None
    columns: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    rows: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Mapping[str, str], ...] = ()
    lengths: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    info: TaskInfo | None = None
    options: tuple[Mapping[str, Any], ...] = ()


def preview(task: str, options: Mapping[str, Any] | None = None) -> Preview:
    """Reads what the task of an id, path or ``hub:`` id would train on. What is wrong is told, never raised."""
    from peft_core.tasks import get_task

    chosen = dict(options or {})
    try:
        found = get_task(task, chosen)
        found_info = _info(found)
    except InputError as error:
        return Preview(problems=(str(error),))
    if isinstance(found, TableTask | ImageTask):
        told = _table(found, chosen) if isinstance(found, TableTask) else _images(found, chosen)
        return replace(told, options=tuple(described_options(task, found.options)))
    assert found_info is not None
    return Preview(kind=found_info.kind, rows=found_info.max_train_rows, info=found_info)


def _info(task: Task) -> TaskInfo | None:
    try:
        return task.info
    except InputError:
        if isinstance(task, TableTask | ImageTask):
            return None
        raise


def _table(task: TableTask, options: Mapping[str, Any]) -> Preview:
    """As much as can be known: names of columns, then what was guessed, then the rows."""
    columns: tuple[str, ...] = ()
    examples: tuple[Mapping[str, str], ...] = ()
    try:
        source, head = task.opened(options)
        columns = source.columns
        shown = [dict(zip(columns, cells, strict=True)) for cells in zip(*head.values(), strict=True)][:EXAMPLES]
        examples = tuple({name: (cell or "")[:EXAMPLE_LENGTH] for name, cell in row.items()} for row in shown)
        found = task.looked_at(options)
    except InputError as error:
        return Preview(columns=columns, examples=examples, problems=(str(error),))
    roles, scans, settled = found.columns, found.scans, found.settled
    stopped: list[str] = []
    for name, scan in scans.items():
        stopped += problems(scan, roles, found.drop_bad, found.first_rows[name], settled or name != "train")
    info = None
    if not stopped:
        try:
            info = task.info
        except InputError as error:
            stopped.append(str(error))
    train: Scan = scans["train"]
    return Preview(
        kind=roles.kind,
        columns=columns,
        roles=dict(roles.roles),
        guessed=roles.guessed,
        rows=train.rows,
        labels=dict(zip(train.labels, train.counts, strict=True)),
        examples=examples,
        lengths=train.lengths,
        problems=tuple(stopped),
        notes=tuple(notes(train, roles, found.drop_bad)),
        info=info,
    )


def _images(task: ImageTask, options: Mapping[str, Any]) -> Preview:
    try:
        info = task.info
        found = task.pictures(options)
    except InputError as error:
        return Preview(kind="image_classification", problems=(str(error),))
    part, rows = found.parts["train"]
    classes = found.source.classes(part)
    counts = {name: int((classes == number).sum()) for number, name in enumerate(found.source.labels)}
    bad = broken(found.source, part, rows[:CHECKED_IMAGES].tolist(), found.side)
    told = [f"{name!r}: {why}; drop_bad=true leaves such images out" for name, why in bad]
    drop = options.get("drop_bad") is True
    return Preview(
        kind="image_classification",
        rows=len(classes),
        labels=counts,
        problems=() if drop else tuple(told),
        notes=(*(told if drop else ()), *([info.protocol] if info.protocol else [])),
        info=info,
    )
