"""``methods``, ``models``, ``tasks``, ``budget``: what there is and what it costs."""

from __future__ import annotations

import argparse
import dataclasses
from contextlib import nullcontext
from typing import Any

from peft_core.commands._output import messages, print_json, print_table
from peft_core.records import InputError, MethodSpec, describe_fields, parse_scalar

MAX_TASKS = 64
_CONFIG_KEYS = ("name", "type", "default", "min", "max", "choices", "help")


def methods(options: argparse.Namespace) -> int:
    """Lists the methods."""
    from peft_core.methods import list_methods

    listed: list[dict[str, Any]] = [
        {
            "id": method.id,
            "title": method.title,
            "family": method.family,
            "source": method.source,
            "boosts": method.boosts,
            "mergeable": method.mergeable,
            "config": [{key: entry[key] for key in _CONFIG_KEYS} for entry in describe_fields(method.Config)],
        }
        for method in list_methods()
    ]
    if options.json:
        print_json(listed)
    else:
        rows = [row | {"options": [entry["name"] for entry in row["config"]]} for row in listed]
        print_table(("id", "title", "family", "options"), rows)
    return 0


def models(options: argparse.Namespace) -> int:
    """Lists the models."""
    from peft_core.backbones import list_models

    keys = ("id", "architecture", "parameters", "origin", "available", "license")
    listed = [{key: getattr(model, key) for key in keys} for model in list_models()]
    print_json(listed) if options.json else print_table(keys, listed)
    return 0


def tasks(options: argparse.Namespace) -> int:
    """Lists the tasks: the embedded ones, then the benchmarks."""
    from peft_core.tasks import list_benchmarks, list_tasks

    keys = ("id", "kind", "metric", "labels", "origin", "available", "train_rows", "eval_rows", "protocol")
    found = [(info, True) for info in list_tasks()] + list_benchmarks()
    described = [
        {**dataclasses.asdict(info), "metric": info.metrics[0], "available": available} for info, available in found
    ]
    listed = [{key: row[key] for key in keys} for row in described]
    print_json(listed) if options.json else print_table(keys[:3] + keys[4:8], listed)
    return 0


def budget(options: argparse.Namespace) -> int:
    """Prints what methods cost on a model."""
    from peft_core.backbones import local_only
    from peft_core.budget import budget as compute
    from peft_core.runs import ranks_of_method, start_of_method, stored_view

    reference = MethodSpec.parse(options.flops_reference) if options.flops_reference else None
    parsed, tasks = [MethodSpec.parse(text) for text in options.method], _tasks(options.tasks)
    asked = [start_of_method(ranks_of_method(method, stored_view), stored_view) for method in parsed]
    with nullcontext() if options.fetch else local_only():
        methods, changes = _locked(options, asked, tasks)
        entries = compute(options.model, methods, reference, tasks)
    if changes:
        entries = [
            entry | {"asked": str(method), "lock": said}
            for entry, method, said in zip(entries, asked, changes, strict=True)
        ]
    if options.json:
        print_json(entries)
    else:
        columns = ("method", "trainable", "trainable_percent", "stored_parameters", "bit_level_storage_percent")
        print_table(
            (*columns, "rank_bound", "adapter_flops_executed", "adapter_flops_nominal", "flops_vs_lora"), entries
        )
        for said in changes:
            messages.print(said, markup=False)
    return 0


def _locked(options: argparse.Namespace, asked: list[MethodSpec], tasks: int) -> tuple[list[MethodSpec], list[str]]:
    """The methods under the lock that was asked for, and what it says of each."""
    if options.lock is None:
        if options.lock_to is not None:
            raise InputError("lock_to", options.lock_to, "it needs a lock: parameters, rank or flops")
        return asked, []
    from peft_core.locks import locked_methods

    methods, record = locked_methods(options.model, asked, options.lock, options.lock_to, tasks)
    return list(methods), list(record.changes)


def _tasks(text: str) -> int:
    tasks = parse_scalar(text)
    if not isinstance(tasks, int) or isinstance(tasks, bool) or not 1 <= tasks <= MAX_TASKS:
        raise InputError("tasks", text, f"it must be a whole number from 1 to {MAX_TASKS}")
    return tasks
