"""Trains the methods and the papers' ablations on the embedded tasks and keeps what came out, whichever way it falls.

    taskset -c 0 python scripts/reproduce.py --tasks acceptability,digits &
    taskset -c 1 python scripts/reproduce.py --tasks similarity,shape_orientation

Two processes may write the one file, each its own tasks: a lock guards it, and what is written is merged. A cell is one
task, method and seed. Finished cells are kept and the command may be stopped and repeated; a cell that was measured
under other settings, another learning rate among them, is measured again. Learning rates come from a sweep on
validation rows (--rates), a method's own on every task; an ablation's variants take the rate of their method. All runs
of a task see the same rows in the same order; a seed draws head, first values and masks. Beside the JSON its tables are
written as Markdown; with nothing left to measure both are written again from the cells.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parents[1]))

from peft_core.records import ComparisonSpec, Event, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.runs import final_ranks
from peft_core.training.checkpoint import write_atomically
from scripts.reproduction.page import page, plan, summary
from scripts.reproduction.plan import ABLATION_TASKS, ABLATIONS, GROUPS, MAIN, MODELS, TASKS, Rates, Variant, needed

Cell = dict[str, Any]
PARTS = ("main", *(group.name for group in ABLATIONS))
LARGEST_COHORT = 12
"""Methods that train together: what an interruption may cost."""
FIGURES = (
    "score", "baseline_score", "split", "steps", "learning_rate", "trainable", "trainable_percent", "stored_bytes",
    "rank", "adapter_flops_nominal", "flops_vs_lora", "seconds", "step_ms_median",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One cell that is asked for."""

    task: str
    variant: Variant
    seed: int
    rate: float
    training: TrainingConfig
    rows: tuple[int | None, int | None]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.variant.key, self.seed

    @property
    def settings(self) -> dict[str, Any]:
        """What a finished cell must agree with."""
        rows = {"train_rows": self.rows[0], "eval_rows": self.rows[1]}
        return {"learning_rate": self.rate, **rows, **self.training.model_dump(exclude_none=True)}

    def settled_in(self, cell: Cell) -> bool:
        return key_of(cell) == self.key and with_defaults(cell["asked"]) == with_defaults(self.settings)

    def method(self, document: dict[str, Any]) -> MethodSpec:
        """The method with its rate, and where it takes learned ranks with those of the finished cell."""
        spec = MethodSpec.parse(self.variant.method)
        options = {**spec.options, "learning_rate": self.rate}
        if self.variant.learned_from:
            key = (self.task, self.variant.learned_from, self.seed)
            learned = next(cell["ranks"] for cell in document["cells"] if key_of(cell) == key)
            options["rank_pattern"] = written(learned, MethodSpec.parse(self.variant.learned_from).id)
        return spec.model_copy(update={"options": options})


def written(ranks: dict[str, int], source: str) -> str:
    from peft_core.methods._rank_pattern import write_pattern

    return write_pattern(ranks, source)


def with_defaults(asked: dict[str, Any]) -> dict[str, Any]:
    """Settings with every training option: one that is newer than a cell has its default there."""
    return asked | TrainingConfig(**{k: v for k, v in asked.items() if k in TrainingConfig.model_fields}).model_dump()


def key_of(cell: Cell) -> tuple[str, str, int]:
    """Task, method and seed of a measured cell."""
    return cell["task"], cell["method"], cell["seed"]


def asked_for(options: argparse.Namespace) -> list[Asked]:
    """Seed by seed, so that every method has its first seed early.

    Raises:
        SystemExit: a learning rate that the sweep did not choose.
    """
    rates = Rates(options.rates)
    training = TrainingConfig(
        steps=options.steps, batch_size=options.batch_size, device="cpu", eval_every=options.steps
    )
    rows = (options.train_rows, options.eval_rows)
    chosen = [group for group in GROUPS if group.name in options.part]
    found = []
    for seed in range(max(options.seeds, options.ablation_seeds)):
        for task in options.tasks:
            groups = [
                group
                for group in chosen
                if seed < (options.seeds if group is MAIN else options.ablation_seeds)
                and (group is MAIN or task in options.ablation_tasks)
            ]
            found += [
                Asked(task, variant, seed, rates.of(task, variant.method), training, rows) for variant in needed(groups)
            ]
    return found


def cohorts(pending: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Cells that train together: one task and seed, and none beside the one that it learns its ranks from."""
    groups: dict[tuple[str, int, bool], list[Asked]] = {}
    for cell in pending:
        groups.setdefault((cell.task, cell.seed, cell.variant.learned_from is not None), []).append(cell)
    for group in groups.values():
        for start in range(0, len(group), LARGEST_COHORT):
            yield group[start : start + LARGEST_COHORT]


def measure(cohort: Sequence[Asked], document: dict[str, Any]) -> list[Cell]:
    """Trains a cohort.

    Raises:
        SystemExit: a run failed.
    """
    from peft_core.training import train_comparison

    first = cohort[0]
    spec = ComparisonSpec(
        model=MODELS[first.task],
        task=first.task,
        methods=tuple(cell.method(document) for cell in cohort),
        seeds=(first.seed,),
        train_rows=first.rows[0],
        eval_rows=first.rows[1],
        training=first.training,
    )
    runs = run_specs("reproduce", spec)
    results: dict[str, Any] = {}
    configs: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    ranks: list[dict[str, Any]] = []

    def emit(event: Event) -> None:
        if event.event == "state" and event.state == RunState.FAILED:
            method = next(run.label for run in runs if run.run == event.run)
            raise SystemExit(f"{first.task}, {method}, seed {first.seed}: {event.error}")
        if event.event == "state" and event.result is not None:
            results[event.run] = event.result.model_dump(mode="json")
        if event.event == "rank":
            ranks.append(event.model_dump(mode="json"))

    def notice(said: dict[str, Any]) -> None:
        facts.update(said)
        if "config" in said:
            configs[said["run"]] = said["config"]

    with tempfile.TemporaryDirectory() as folder:
        train_comparison(spec, runs, folder=Path(folder), emit=emit, notice=notice, stop=lambda run: False)
    return [
        {
            "task": cell.task,
            "method": cell.variant.key,
            "seed": cell.seed,
            "asked": cell.settings,
            "metric": facts["metric"],
            "config": configs[run.run],
            **{name: results[run.run][name] for name in FIGURES},
            "ranks": learned(ranks, run.run, results[run.run]["selected_step"]),
            "environment": facts["environment"],
        }
        for cell, run in zip(cohort, runs, strict=True)
    ]


def learned(ranks: list[dict[str, Any]], run: str, step: int) -> dict[str, int] | None:
    """Final rank by map; None for methods without one update a map."""
    try:
        return final_ranks(ranks, run, step)
    except ValueError:
        return None


def opened(options: argparse.Namespace) -> dict[str, Any]:
    """The document as it stands, or one without cells."""
    if options.out.is_file():
        document: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
        return document
    return {"title": "The claim, measured", "what": WHAT, "commands": [], "rates": {}, "environments": [], "cells": []}


WHAT = (
    "Score of the last step, mean and sample deviation over seeds; differences are paired by seed, the batches being "
    "the same, with a 95 % Student-t interval; learning rates from a sweep on validation rows"
)


def keep(options: argparse.Namespace, cells: Sequence[Cell]) -> None:
    """Puts measured cells into the file, beside what other processes have put there."""
    with FileLock(f"{options.out}.lock"):
        document = opened(options)
        keys = {key_of(cell) for cell in cells}
        rest = [cell for cell in document["cells"] if key_of(cell) not in keys]
        for cell in cells:
            if cell["environment"] not in document["environments"]:
                document["environments"].append(cell["environment"])
            cell["environment"] = document["environments"].index(cell["environment"])
        document["cells"] = sorted([*rest, *cells], key=key_of)
        document["rates"] = {
            "file": options.rates.as_posix(), "sha256": hashlib.sha256(options.rates.read_bytes()).hexdigest(),
        }  # fmt: skip
        if said(options) not in document["commands"]:
            document["commands"] = sorted([*document["commands"], said(options)])
        write(options.out, document)


def write(out: Path, document: dict[str, Any]) -> None:
    """The document with what its cells say together, and its tables."""
    document |= {"plan": plan(), "summary": summary(document["cells"])}
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(out, (text + "\n").encode())
    write_atomically(out.with_suffix(".md"), page(document).encode())


def write_again(options: argparse.Namespace) -> None:
    """The same cells, summed up as this version of the code does."""
    with FileLock(f"{options.out}.lock"):
        document = opened(options)
        if document["cells"]:
            write(options.out, document)


def said(options: argparse.Namespace) -> str:
    """The command."""
    words = ["python", "scripts/reproduce.py", "--tasks", ",".join(options.tasks), "--part", ",".join(options.part)]
    words += ["--ablation-tasks", ",".join(options.ablation_tasks), "--steps", str(options.steps)]
    words += ["--seeds", str(options.seeds), "--ablation-seeds", str(options.ablation_seeds)]
    words += ["--batch-size", str(options.batch_size)]
    for name in ("train_rows", "eval_rows"):
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return shlex.join([*words, "--rates", options.rates.as_posix()])


def names(known: Sequence[str]) -> Any:
    """A reader of comma-separated names that are known."""

    def read(text: str) -> tuple[str, ...]:
        given = tuple(part for part in text.split(",") if part)
        unknown = next((part for part in given if part not in known), None)
        if unknown is not None or not given:
            raise argparse.ArgumentTypeError(f"{unknown or 'nothing'}: it must be of {', '.join(known)}")
        return given

    return read


def read_part(text: str) -> tuple[str, ...]:
    every = {"ablations": ",".join(PARTS[1:]), "all": ",".join(PARTS)}
    return tuple(names(PARTS)(",".join(every.get(part, part) for part in text.split(","))))


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train methods and ablations on the embedded tasks.")
    parser.add_argument("--part", type=read_part, default=PARTS, help=f"all, main, ablations, or of {', '.join(PARTS)}")
    parser.add_argument("--tasks", type=names(TASKS), default=TASKS, help="comma-separated ids")
    parser.add_argument(
        "--ablation-tasks", type=names(TASKS), default=ABLATION_TASKS, help="those of --tasks that count"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of the main comparison")
    parser.add_argument("--ablation-seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--train-rows", type=int, help="empty: the task's")
    parser.add_argument("--eval-rows", type=int, help="empty: the task's")
    parser.add_argument("--rates", type=Path, default=Path("assets/sweeps/learning_rates.json"))
    parser.add_argument("--out", type=Path, default=Path("assets/benchmarks/reproduce.json"))
    parser.add_argument("--count", action="store_true", help="say how many cells are missing, and train nothing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    asked, document = asked_for(options), opened(options)
    pending = [cell for cell in asked if not any(cell.settled_in(other) for other in document["cells"])]
    print(f"{len(asked)} cells, {len(pending)} to measure", flush=True)
    if options.count:
        return
    write_again(options)
    done, started = 0, time.monotonic()
    for cohort in cohorts(pending):
        keep(options, measure(cohort, opened(options)))
        done += len(cohort)
        spent = time.monotonic() - started
        left = spent / done * (len(pending) - done)
        print(f"{done} of {len(pending)} in {spent:.0f} s, about {left:.0f} s left", flush=True)


if __name__ == "__main__":
    main()
