"""Benchmarks as tasks: rows from RANKLAB_DATA, else from the cache of `datasets`, else from the Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from peft_core.records import InputError
from peft_core.tasks import _hub
from peft_core.tasks._benchmark_table import BENCHMARKS, Benchmark
from peft_core.tasks._contract import Task, TaskInfo
from peft_core.tasks._image_task import DEFAULT_EVAL as IMAGE_EVAL
from peft_core.tasks._image_task import DEFAULT_TRAIN as IMAGE_TRAIN
from peft_core.tasks._image_task import ImageDescription, ImageTask
from peft_core.tasks._images import IMAGE_OPTIONS, ImageFiles, ImageSource
from peft_core.tasks._scan import Scan
from peft_core.tasks._splits import permutation
from peft_core.tasks._table_task import DEFAULT_EVAL, DEFAULT_TRAIN, Description, Parts, TableTask
from peft_core.tasks._tables import Source, TableFile

__all__ = ["BENCHMARKS", "at_hand", "benchmark_info", "benchmark_task", "list_benchmarks"]

SELECTED = 1000
"""Training rows that ProPETL's split sets aside to select on, for sets of 10,000 rows and more."""
GLUE_PROTOCOLS = ("default", "adalora", "propetl")
VTAB_PROTOCOLS = ("default", "800/200")


def protocols_of(benchmark: Benchmark) -> tuple[str, ...]:
    """Values of the option ``protocol``."""
    if benchmark.small is not None:
        return GLUE_PROTOCOLS
    if benchmark.id.startswith("glue/"):
        return GLUE_PROTOCOLS[:2]
    return VTAB_PROTOCOLS if benchmark.drawn else GLUE_PROTOCOLS[:1]


def local_path(benchmark: Benchmark) -> Path | None:
    """Folder or zip with a copy of a benchmark in RANKLAB_DATA."""
    from peft_core.tasks._resolve import tables_in

    data = os.environ.get("RANKLAB_DATA")
    if not data:
        return None
    root = Path(data).expanduser()
    if benchmark.kind != "image_classification":
        folder = root / benchmark.id
        return folder if folder.is_dir() and len(tables_in(folder)) == 2 else None
    group, _, last = benchmark.id.rpartition("/")
    groups = (group, "vtab-1k") if group == "vtab" else (group,)
    bases = [root / folder / name for folder in groups for name in (last, *benchmark.aliases)]
    if not group:
        bases += [root / "images" / name for name in (last, f"{last}_subset")]
    candidates = (path for base in bases for path in (base, base.with_name(f"{base.name}.zip")))
    return next((path for path in candidates if path.exists()), None)


def at_hand(benchmark: Benchmark) -> bool:
    """Whether the rows are in RANKLAB_DATA or in the cache; asks no network."""
    if local_path(benchmark) is not None:
        return True
    return _hub.cached(benchmark.repository, benchmark.configuration, benchmark.revision) is not None


def benchmark_task(benchmark: Benchmark, options: Mapping[str, Any]) -> Task:
    """The task of a benchmark, its info for the options."""
    kind = BenchmarkImages if benchmark.kind == "image_classification" else BenchmarkTable
    return kind(benchmark, options)


def benchmark_info(
    benchmark: Benchmark, protocol: str = "default", options: Mapping[str, Any] | None = None
) -> TaskInfo:
    """What the table says, without a look at any row."""
    labels = benchmark.labels or tuple(str(number) for number in range(benchmark.classes)) or None
    image = benchmark.kind == "image_classification"
    train, held, apart = _official(benchmark, protocol)
    usual = (IMAGE_TRAIN, IMAGE_EVAL) if image else (DEFAULT_TRAIN, DEFAULT_EVAL)
    return TaskInfo(
        id=benchmark.id,
        title=benchmark.title,
        description=f"The benchmark {benchmark.title}.",
        kind=benchmark.kind,
        modality="image" if image else "text",
        metrics=benchmark.metrics,
        labels=labels,
        outputs={"span_qa": 2, "generation": 0}.get(benchmark.kind, len(labels or ()) or 1),
        train_rows=min(train, usual[0]),
        eval_rows=min(held, usual[1]),
        max_train_rows=train,
        max_eval_rows=held,
        validation_rows=apart,
        origin="benchmark",
        license=benchmark.license,
        protocol=said_of(benchmark, protocol),
        options=dict(options if options is not None else {"protocol": "default"}),
    )


def list_benchmarks() -> list[tuple[TaskInfo, bool]]:
    """What every benchmark says of itself, from its rows where a copy is in RANKLAB_DATA; and whether rows are at hand.

    A copy that cannot be read counts as not there; its task says why.
    """
    found = []
    for benchmark in BENCHMARKS.values():
        info, there = benchmark_info(benchmark), at_hand(benchmark)
        if local_path(benchmark) is not None:
            try:
                info = benchmark_task(benchmark, {}).info
            except InputError:
                there = False
        found.append((info, there))
    return found


def _official(benchmark: Benchmark, protocol: str) -> tuple[int, int, int]:
    """Training, evaluation and selection rows of the official set under a protocol."""
    train, held = benchmark.train_rows, benchmark.eval_rows
    if protocol == "800/200":
        return 800, 200, 0
    if protocol == "propetl":
        return (train, held - held // 2, held // 2) if benchmark.small else (train - SELECTED, held, SELECTED)
    return train, held, 0


def said_of(benchmark: Benchmark, protocol: str) -> str:
    """A protocol in one sentence."""
    held = benchmark.splits[1]
    if protocol == "adalora":
        return f"AdaLoRA's: the {held} split is the test set, no selection"
    if protocol == "propetl" and benchmark.small:
        return f"ProPETL's: half of the {held} split (permutation of seed 42) to select on, the other half reported"
    if protocol == "propetl":
        return f"ProPETL's: {SELECTED} training rows (permutation of seed 42) to select on, the {held} split reported"
    if protocol == "800/200":
        return "VTAB-1k's tuning split: 800 training images, 200 others evaluated"
    if benchmark.drawn:
        return f"VTAB-1k: {benchmark.drawn} training images (800 + 200), the {held} split reported"
    return f"trained on the train split, scored on the {held} split at the last step"


def _protocol(benchmark: Benchmark, chosen: Mapping[str, Any]) -> str:
    allowed = protocols_of(benchmark)
    if chosen["protocol"] not in allowed:
        raise InputError("task_options.protocol", chosen["protocol"], f"it must be one of {', '.join(allowed)}")
    found: str = chosen["protocol"]
    return found


def subset_note(benchmark: Benchmark, train: int, held: int) -> str:
    """What to say where a copy has other rows than the official splits; empty where the counts agree."""
    if (train, held) == (benchmark.train_rows, benchmark.eval_rows):
        return ""
    return (
        f"not the official split: {train:,} training and {held:,} evaluation rows at hand instead of "
        f"{benchmark.train_rows:,} and {benchmark.eval_rows:,}, so scores do not compare with published ones"
    )


class BenchmarkTable(TableTask):
    """A benchmark of text."""

    def __init__(self, benchmark: Benchmark, options: Mapping[str, Any]) -> None:
        self.benchmark = benchmark
        about = Description(
            id=benchmark.id,
            title=benchmark.title,
            description=f"The benchmark {benchmark.title}.",
            origin="benchmark",
            license=benchmark.license,
            protocol="",
            metrics=benchmark.metrics,
            labels=benchmark.labels,
            options={"protocol": "default"},
        )
        super().__init__(about, self._opened, options, protocol=self._divided)

    def _opened(self, chosen: Mapping[str, Any]) -> Mapping[str, Source]:
        benchmark = self.benchmark
        if path := local_path(benchmark):
            from peft_core.tasks._resolve import tables_in

            return {part: TableFile(file) for part, file in tables_in(path).items()}
        from peft_core.tasks._hub_source import HubOrigin, HubTable

        data, commit = _hub.load(benchmark.repository, benchmark.configuration, benchmark.revision)
        whence = HubOrigin(benchmark.repository, benchmark.configuration, commit)
        return {
            part: HubTable(_split(benchmark, data, split), split, whence)
            for part, split in zip(("train", "eval"), benchmark.splits, strict=True)
        }

    def _fixed_columns(self, source: Source) -> Mapping[str, Any]:
        for roles in self.benchmark.columns:
            if set(roles.values()) <= set(source.columns):
                return {**roles, "kind": self.benchmark.kind}
        wanted = " or ".join(", ".join(roles.values()) for roles in self.benchmark.columns)
        raise InputError("task", source.name, f"{self.benchmark.id} needs the columns {wanted}; there are "
                         f"{', '.join(source.columns)}")  # fmt: skip

    def _divided(self, chosen: Mapping[str, Any], scans: Mapping[str, Scan]) -> tuple[Parts, str]:
        protocol = _protocol(self.benchmark, chosen)
        train, held = (np.flatnonzero(scans[part].usable) for part in ("train", "eval"))
        said = said_of(self.benchmark, protocol)
        note = subset_note(self.benchmark, scans["train"].rows, scans["eval"].rows)
        said = f"{said}; {note}" if note else said
        if protocol != "propetl":
            return {"train": ("train", train), "eval": ("eval", held)}, said
        if self.benchmark.small:
            order = permutation(len(held))
            half = len(held) // 2
            apart = {"validation": ("eval", held[order[:half]]), "eval": ("eval", held[order[half:]])}
            return {"train": ("train", train), **apart}, said
        order = permutation(len(train))
        chosen_rows = {"train": ("train", train[order[SELECTED:]]), "validation": ("train", train[order[:SELECTED]])}
        return {**chosen_rows, "eval": ("eval", held)}, said

    @cached_property
    def info(self) -> TaskInfo:
        """From the rows where they are at hand, else from the table."""
        if not at_hand(self.benchmark):
            chosen = self._chosen(self._bound)
            return benchmark_info(self.benchmark, _protocol(self.benchmark, chosen), self._about.options)
        return self._info()

    def check(self, options: Mapping[str, Any]) -> None:
        """Without a download: options, and the rows where they are at hand."""
        _protocol(self.benchmark, self._chosen(options))
        if at_hand(self.benchmark):
            self.plan(options)
        elif _hub.offline():
            raise missing(self.benchmark)


class BenchmarkImages(ImageTask):
    """A benchmark of images."""

    def __init__(self, benchmark: Benchmark, options: Mapping[str, Any]) -> None:
        self.benchmark = benchmark
        about = ImageDescription(
            id=benchmark.id,
            title=benchmark.title,
            origin="benchmark",
            license=benchmark.license,
            protocol="",
            options={"protocol": "default", **IMAGE_OPTIONS},
        )
        super().__init__(about, self._found, options)

    def _found(self) -> ImageSource:
        benchmark = self.benchmark
        if path := local_path(benchmark):
            return ImageFiles(path)
        from peft_core.tasks._hub_source import HubImages, HubOrigin

        data, commit = _hub.load(benchmark.repository, benchmark.configuration, benchmark.revision)
        splits = {
            part: (split, _split(benchmark, data, split))
            for part, split in zip(("train", "eval"), benchmark.splits, strict=True)
        }
        there = set(splits["train"][1].column_names)
        roles = next((roles for roles in benchmark.columns if set(roles.values()) <= there), benchmark.columns[0])
        whence = HubOrigin(benchmark.repository, benchmark.configuration, commit)
        return HubImages(splits, whence, (roles["image"], roles["label"]))

    def _divided(
        self, source: ImageSource, chosen: Mapping[str, Any]
    ) -> tuple[Mapping[str, tuple[str, np.ndarray]], str]:
        benchmark, protocol = self.benchmark, _protocol(self.benchmark, chosen)
        if len(source.labels) != benchmark.classes:
            raise InputError(
                "task", source.name, f"it has {len(source.labels)} classes, {benchmark.id} has {benchmark.classes}"
            )
        parts, _ = super()._divided(source, chosen)
        train, held = parts["train"], parts["eval"]
        said = said_of(benchmark, protocol)
        drawn = benchmark.drawn
        if drawn is None:
            note = subset_note(benchmark, len(train[1]), len(held[1]))
            return parts, f"{said}; {note}" if note else said
        if len(train[1]) > drawn:
            train = (train[0], self._some(source, train[1], drawn, chosen["split_seed"]))
            said += f"; drawn by a hash of their names (split_seed {chosen['split_seed']}), not by the set's own list"
        if protocol == "800/200":
            return {"train": (train[0], train[1][:800]), "eval": (train[0], train[1][800:1000])}, said
        return {"train": train, "eval": held}, said

    @cached_property
    def info(self) -> TaskInfo:
        """From the images where they are at hand, else from the table."""
        if not at_hand(self.benchmark):
            chosen = self._chosen(self._bound)
            return benchmark_info(self.benchmark, _protocol(self.benchmark, chosen), self._about.options)
        return replace(self._info(), metrics=self.benchmark.metrics)

    def check(self, options: Mapping[str, Any]) -> None:
        """Without a download: options, and the images where they are at hand."""
        _protocol(self.benchmark, self._chosen(options))
        if at_hand(self.benchmark):
            self.pictures(options)
        elif _hub.offline():
            raise missing(self.benchmark)


def missing(benchmark: Benchmark) -> InputError:
    return InputError(
        "task",
        benchmark.id,
        "its rows are neither in RANKLAB_DATA nor in the cache, and the Hub is switched off (HF_HUB_OFFLINE)",
    )


def _split(benchmark: Benchmark, data: Mapping[str, Any], split: str) -> Any:
    if split not in data:
        raise InputError("task", benchmark.id, f"{benchmark.repository} has no split {split}; it has {', '.join(data)}")
    return data[split]
