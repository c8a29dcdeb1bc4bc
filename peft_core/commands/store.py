"""``runs``, ``resume``, ``cancel``, ``delete``: the store that the page uses too."""

from __future__ import annotations

import argparse
import json
from typing import Any

from peft_core.commands._executor import chosen
from peft_core.commands._output import messages, print_json, print_table
from peft_core.commands.compare import follow
from peft_core.records import ComparisonRow, View
from peft_core.runs import Supervisor, home


def runs(options: argparse.Namespace) -> int:
    """Lists the comparisons, or shows one."""
    with Supervisor(home()) as supervisor:
        if options.id is None:
            listed = [_summary(row) for row in supervisor.comparisons()]
            if options.json:
                print_json(listed)
            else:
                print_table(("id", "created", "state", "model", "task", "methods", "seeds"), listed)
            return 0
        view = supervisor.view(options.id.rpartition("-")[0] if "-" in options.id else options.id)
    _show(view, options)
    return 0


def _summary(row: ComparisonRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "created": row.created,
        "state": row.state.value,
        "model": row.spec.model,
        "task": row.spec.task,
        "methods": [str(method) for method in row.spec.methods],
        "seeds": list(row.spec.seeds),
    }


def _show(view: View, options: argparse.Namespace) -> None:
    from peft_core.report import results_document

    document = results_document(view)
    if "-" in options.id:
        document = next((run for run in document["runs"] if run["run"] == options.id), document)
        rows = [document]
    else:
        rows = document["runs"]
    if options.json:
        print_json(document)
    else:
        print_table(("run", "label", "seed", "state", "score", "error"), [_flat(row) for row in rows])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"score": json.dumps(row["score"]) if row.get("score") else None}


def resume(options: argparse.Namespace) -> int:
    """Goes on with a comparison and follows it to its end."""
    with Supervisor(home(), executor=chosen(options)) as supervisor:
        supervisor.resume(options.id)
        return follow(supervisor, options.id, as_json=options.json, out=None)


def cancel(options: argparse.Namespace) -> int:
    """Asks for the end of a comparison or a run."""
    with Supervisor(home()) as supervisor:
        supervisor.cancel(options.id)
    return _said(options, "cancelled")


def delete(options: argparse.Namespace) -> int:
    """Removes a comparison."""
    with Supervisor(home()) as supervisor:
        supervisor.delete(options.id)
    return _said(options, "deleted")


def _said(options: argparse.Namespace, what: str) -> int:
    if options.json:
        print_json({"id": options.id, "done": what})
    else:
        messages.print(f"{options.id} {what}")
    return 0
