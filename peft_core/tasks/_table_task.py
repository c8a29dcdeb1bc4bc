"""A task whose rows are a table: the visitor's own file, a Hub data set, or a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from peft_core.records import InputError
from peft_core.tasks._columns import Columns, Head, answer_list, find_columns
from peft_core.tasks._contract import Rows, Split, TaskInfo, TaskKind
from peft_core.tasks._memory import remembered
from peft_core.tasks._scan import Scan, class_numbers, head_of, problems, scan
from peft_core.tasks._splits import EVAL_SHARE, held_out, said_of_defaults, shuffled
from peft_core.tasks._stream import check_count, check_options
from peft_core.tasks._tables import Source

MAX_TRAIN, MAX_EVAL = 1_000_000, 100_000
DEFAULT_TRAIN, DEFAULT_EVAL = 20_000, 2_000
METRICS: dict[TaskKind, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "pair_classification": ("accuracy",),
    "image_classification": ("accuracy",),
    "regression": ("pearson", "spearman"),
    "pair_regression": ("pearson", "spearman"),
    "span_qa": ("exact_match", "qa_f1"),
    "generation": ("bleu", "rouge_l"),
}
COLUMN_OPTIONS: dict[str, Any] = dict.fromkeys(
    ("kind", "text", "text2", "label", "question", "context", "answers", "target")
)
ROW_OPTIONS: dict[str, Any] = {"drop_bad": False, "eval_share": EVAL_SHARE, "split_seed": 0}

Parts = Mapping[str, tuple[str, np.ndarray]]
"""Name of a source and numbers of its rows, by "train", "eval" and, where a protocol selects on rows apart from the
reported ones, "validation"."""


@dataclass(frozen=True)
class Look:
    """What one pass over the sources found. labels: names of the classes, where they are known from elsewhere."""

    columns: Columns
    scans: Mapping[str, Scan]
    first_rows: Mapping[str, int]
    labels: tuple[str, ...] | None
    drop_bad: bool

    @property
    def settled(self) -> bool:
        return self.labels is not None


@dataclass(frozen=True)
class Plan:
    """Everything that is known of a table task once its options are."""

    columns: Columns
    sources: Mapping[str, Source]
    """"train" and, where evaluation rows are a table of their own, "eval"."""
    scans: Mapping[str, Scan]
    parts: Parts
    said: str
    """How the parts were made."""
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Description:
    """What a table task says of itself beyond what its rows tell."""

    id: str
    title: str
    description: str
    origin: str
    license: str
    protocol: str
    metrics: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


Sources = Callable[[Mapping[str, Any]], Mapping[str, Source]]
Protocol = Callable[[Mapping[str, Any], Mapping[str, Scan]], tuple[Parts, str]]
"""Options and scans to the parts, and a sentence on how they were made."""


class TableTask:
    """Rows of one table (split by `split_seed`) or of two.

    Args:
        sources: opens "train" and perhaps "eval" for options; may raise an InputError.
        protocol: how rows are divided; None: held out by hash where there is no eval table.
        bound: options that `info` is for.
    """

    teacher = None

    def __init__(
        self,
        description: Description,
        sources: Sources,
        bound: Mapping[str, Any],
        protocol: Protocol | None = None,
    ) -> None:
        self._about, self._sources, self._bound = description, sources, dict(bound)
        self._protocol = protocol or own_split

    @property
    def options(self) -> Mapping[str, Any]:
        """What it takes, with its defaults."""
        return self._about.options

    def _chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        check_options(options, self._about.options)
        chosen = {**self._about.options, **options}
        share, seed, drop = (chosen.get(name, ROW_OPTIONS[name]) for name in ("eval_share", "split_seed", "drop_bad"))
        if type(share) not in (int, float) or not 0 < share < 1:
            raise InputError("task_options.eval_share", share, "it must be a number between 0 and 1")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise InputError("task_options.split_seed", seed, "it must be a whole number from 0 to 2^63 - 1")
        if type(drop) is not bool:
            raise InputError("task_options.drop_bad", drop, "it must be true or false")
        return chosen

    def plan(self, options: Mapping[str, Any]) -> Plan:
        """Columns, one pass over the rows, and who is held out; remembered while the sources stay as they are.

        Raises:
            InputError: an option, a column, or the first thing that is wrong with the rows.
        """
        chosen = self._chosen(options)
        sources = self._sources(chosen)
        key = (self._about.id, *(source.key() for source in sources.values()), *sorted(chosen.items(), key=str))
        return remembered(key, lambda: self._plan(chosen, sources))

    def column_names(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Name of the table's column, by role."""
        return dict(self.plan(options).columns.roles)

    def opened(self, options: Mapping[str, Any]) -> tuple[Source, Head]:
        """The training source and its first rows."""
        source = self._sources(self._chosen(options))["train"]
        return source, remembered((source.key(), "head"), lambda: head_of(source))

    def looked_at(self, options: Mapping[str, Any]) -> Look:
        """Columns and one pass over every source, right or wrong; raises only where rows cannot be read."""
        chosen = self._chosen(options)
        return self._look(chosen, self._sources(chosen))

    def _look(self, chosen: Mapping[str, Any], sources: Mapping[str, Source]) -> Look:
        source = sources["train"]
        columns = columns_of(source, {**chosen, **self._fixed_columns(source)})
        for other in sources.values():
            missing = [name for name in columns.names if name not in other.columns]
            if missing:
                raise InputError("task", other.name, f"it has no column {missing[0]!r}, which {source.name} has")
        known = self._about.labels or source.classes.get(dict(columns.roles).get("label", ""))
        return Look(
            columns,
            {name: scan(part, columns) for name, part in sources.items()},
            {name: part.first_row for name, part in sources.items()},
            known,
            chosen.get("drop_bad", False),
        )

    def _plan(self, chosen: Mapping[str, Any], sources: Mapping[str, Source]) -> Plan:
        look = self._look(chosen, sources)
        for name, found in look.scans.items():
            settled = look.settled or name != "train"
            wrong = problems(found, look.columns, look.drop_bad, look.first_rows[name], settled)
            if wrong:
                raise InputError("task", sources[name].name, wrong[0])
        labels = look.labels or (look.scans["train"].labels if look.scans["train"].codes is not None else None)
        if labels is not None:
            for name, found in look.scans.items():
                class_numbers(labels, found.labels, found.counts, sources[name].name)
        parts, said = self._protocol(chosen, look.scans)
        for part, purpose in (("train", "train"), ("eval", "evaluate")):
            if not len(parts[part][1]):
                allowed = f"no row is left to {purpose} on; equal texts stay together, and too few are different"
                raise InputError("task", sources["train"].name, allowed)
        return Plan(look.columns, sources, look.scans, parts, said, labels)

    def _fixed_columns(self, source: Source) -> Mapping[str, Any]:
        """Options for columns and kind that are no choice of the visitor."""
        return {}

    @cached_property
    def info(self) -> TaskInfo:
        """What the rows are, for the options that the task was made with.

        Raises:
            InputError: as `plan`.
        """
        return self._info()

    def _info(self) -> TaskInfo:
        plan = self.plan(self._bound)
        about, kind = self._about, plan.columns.kind
        train, held = (_count(plan, split) for split in ("train", "eval"))
        outputs = {"span_qa": 2, "generation": 0}.get(kind, len(plan.labels or ()) or 1)
        left_out = said_of_defaults((train, DEFAULT_TRAIN), (held, DEFAULT_EVAL))
        metrics = about.metrics or METRICS[kind] + (("f1",) if plan.labels and outputs == 2 else ())
        return TaskInfo(
            id=about.id,
            title=about.title,
            description=about.description,
            kind=kind,
            modality="text",
            metrics=metrics,
            labels=plan.labels,
            outputs=outputs,
            train_rows=min(train, DEFAULT_TRAIN),
            eval_rows=min(held, DEFAULT_EVAL),
            max_train_rows=min(train, MAX_TRAIN),
            max_eval_rows=min(held, MAX_EVAL),
            validation_rows=_count(plan, "validation"),
            origin=about.origin,
            license=about.license,
            protocol="; ".join(part for part in (about.protocol, plan.said, left_out) if part),
            options=about.options,
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Reads the rows once (they are needed anyway) and refuses what cannot be trained on."""
        self.plan(options)

    def rows(self, split: Split, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        return self._rows(split, count, seed, options)

    def validation(self, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        """Rows to select on, apart from training and evaluation; only under a protocol that has them."""
        return self._rows("validation", count, seed, options)

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Where the rows came from: strings and numbers for a result to keep."""
        return {name: source.origin() for name, source in self._sources(self._chosen(options)).items()}

    def _rows(self, part: str, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        plan = self.plan(options)
        limit = min(_count(plan, part), MAX_TRAIN if part == "train" else MAX_EVAL)
        check_count(f"{part}_rows", count, limit)
        name, rows = plan.parts[part]
        source, found = plan.sources[name], plan.scans[name]
        order = shuffled(rows, found.contents, seed, part)
        if plan.columns.kind == "generation" and part != "train":
            return _references(source, plan, found, order, count)
        return _built(source, plan, found, order[:count])


def own_split(chosen: Mapping[str, Any], scans: Mapping[str, Scan]) -> tuple[Parts, str]:
    """The tables' own split; where there is one table, a share held out by a hash of the text."""
    usable = {name: np.flatnonzero(found.usable) for name, found in scans.items()}
    if "eval" in scans:
        return {name: (name, usable[name]) for name in scans}, ""
    found, seed, share = scans["train"], chosen["split_seed"], chosen["eval_share"]
    train, held = held_out(usable["train"], found.groups, found.codes, seed, share)
    equal = ", equal shares of every class" if found.codes is not None else ""
    said = f"{share:.0%} of the rows are held out by a hash of their text (split_seed {seed}){equal}"
    return {"train": ("train", train), "eval": ("train", held)}, said


def columns_of(source: Source, chosen: Mapping[str, Any]) -> Columns:
    """Columns for options, guessed from the first rows where they are not given."""
    head = remembered((source.key(), "head"), lambda: head_of(source))
    if not head[source.columns[0]]:
        raise InputError("task", source.name, "it holds a header and no rows")
    return find_columns(source.columns, head, chosen)


def take(source: Source, columns: Sequence[str], rows: np.ndarray) -> dict[str, list[str | None]]:
    """Cells of the given rows, in their order; reads the source up to the last of them, holding only what is asked."""
    import pyarrow as pa

    wanted = np.sort(rows)
    pieces, start = [], 0
    for batch in source.batches(columns):
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(batch))] - start
        if len(here):
            pieces.append(batch.take(pa.array(here)))
        start += len(batch)
        if not len(wanted) or start > wanted[-1]:
            break
    table = pa.Table.from_batches(pieces) if pieces else pa.table({name: pa.array([], pa.string()) for name in columns})
    table = table.take(pa.array(np.searchsorted(wanted, rows)))
    return {name: table.column(name).to_pylist() for name in columns}


def _count(plan: Plan, part: str) -> int:
    if part not in plan.parts:
        return 0
    name, rows = plan.parts[part]
    if plan.columns.kind != "generation" or part == "train":
        return len(rows)
    return len(np.unique(plan.scans[name].contents[rows]))


def _built(source: Source, plan: Plan, found: Scan, rows: np.ndarray) -> Rows:
    columns, kind = plan.columns, plan.columns.kind
    cells = take(source, columns.names, rows)
    if kind == "span_qa":
        contexts = [text or "" for text in cells[columns["context"]]]
        answers = [_spans(c, a) for c, a in zip(contexts, cells[columns["answers"]], strict=True)]
        return Rows({"question": cells[columns["question"]], "context": contexts, "answers": answers}, None)
    if kind == "generation":
        return Rows({"text": cells[columns["text"]], "target": _targets(cells[columns["target"]])}, None)
    texts = {role: cells[column] for role, column in columns.roles if role != "label"}
    if found.values is not None:
        return Rows(texts, found.values[rows])
    assert found.codes is not None and plan.labels is not None
    numbers = np.array(class_numbers(plan.labels, found.labels, found.counts, source.name), dtype=np.int64)
    return Rows(texts, numbers[found.codes[rows]])


def _references(source: Source, plan: Plan, found: Scan, order: np.ndarray, count: int) -> Rows:
    """Evaluation rows of generation: a source text once, with the targets of all its rows as references."""
    first: dict[int, int] = {}
    chosen: list[int] = []
    places: list[int] = []
    for row, content in zip(order.tolist(), found.contents[order].tolist(), strict=True):
        place = first.setdefault(content, len(first))
        if place < count:
            chosen.append(row)
            places.append(place)
    every = _built(source, plan, found, np.array(chosen))
    texts: list[str] = [""] * count
    targets: list[tuple[str, ...]] = [()] * count
    for place, text, target in zip(places, every.columns["text"], every.columns["target"], strict=True):
        texts[place], targets[place] = text, targets[place] + target
    return Rows({"text": texts, "target": targets}, None)


def _targets(cells: Sequence[str | None]) -> list[tuple[str, ...]]:
    """Every cell is one reference, or a JSON list of several."""
    return [
        tuple(text for text, _ in answer_list(cell)) if cell and cell[:2] == '["' else (cell or "",) for cell in cells
    ]


def _spans(context: str, cell: str | None) -> tuple[tuple[str, int], ...]:
    """Answers with the index of their first character; where that is missing or wrong, the first place they stand."""
    spans = []
    for text, start in answer_list(cell) if cell else ():
        if start is None or context[start : start + len(text)] != text:
            start = context.find(text)
        if text and start >= 0:
            spans.append((text, start))
    return tuple(spans)
