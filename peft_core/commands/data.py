"""``preview``, ``presets``: what is in a task's rows, and with which settings the papers ran it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from peft_core.commands._output import print_json, print_table
from peft_core.records import InputError, parse_scalar, parse_task_option

SHOWN_LABELS = 12


def task_options(texts: list[str]) -> dict[str, Any]:
    """The options of ``--task-option KEY=VALUE``."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError("task-option", text, "it must be written KEY=VALUE")
        options[key] = parse_task_option(key, value)
    return options


def preview(options: argparse.Namespace) -> int:
    """Shows what a table, a data set or a set of images holds. 0: it can be trained on; 2: the problems say why not."""
    from peft_core.training.preview import described

    limit: Any = None if options.max_length is None else parse_scalar(options.max_length)
    found = described(options.model, options.task, task_options(options.task_option), limit)
    print_json(found) if options.json else _print(found)
    for sentence in found["problems"]:
        print(sentence, file=sys.stderr)
    return 2 if found["problems"] else 0


def _print(found: dict[str, Any]) -> None:
    facts = {"kind": found["kind"]} if found["kind"] else {}
    facts |= {f"column of {role}": name for role, name in found["roles"].items()}
    facts |= {"guessed": list(found["guessed"])} if found["guessed"] else {}
    facts |= {"rows": found["rows"]} if found["rows"] else {}
    labels = sorted(found["labels"].items(), key=lambda entry: -entry[1])
    facts |= {"labels": [f"{name}: {count:,}" for name, count in labels[:SHOWN_LABELS]]} if labels else {}
    facts |= {"classes": len(labels)} if len(labels) > SHOWN_LABELS else {}
    if found["task"]:
        facts |= {"trained on": found["task"]["max_train_rows"], "evaluated on": found["task"]["max_eval_rows"]}
    facts |= {"tokens": found["tokens"]["said"]} if found["tokens"] else {}
    facts |= {f"note {number}": text for number, text in enumerate(found["notes"], 1)}
    if facts:
        print_table(("what", "found"), [{"what": name, "found": value} for name, value in facts.items()])
    if found["examples"]:
        print()
        print_table(found["columns"], found["examples"])


def presets(options: argparse.Namespace) -> int:
    """Lists the papers' settings for a benchmark."""
    from peft_core.tasks import get_task
    from peft_core.tasks import presets as listed

    get_task(options.task)
    found = [{"name": preset.name} | dataclasses.asdict(preset) for preset in listed(options.task)]
    if options.json:
        print_json(found)
        return 0
    rows = [row | {"training": _written(row["training"]), "options": _written(row["options"])} for row in found]
    print_table(("name", "options", "training", "protocol"), rows)
    for preset in found:
        where = "; ".join(f"{name}: {place}" for name, place in preset["sources"].items())
        beyond = _written(preset["beyond"])
        print(f"{preset['name']}: {where}" + (f"; and {beyond}, which no option takes" if beyond else ""))
    return 0


def _written(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
