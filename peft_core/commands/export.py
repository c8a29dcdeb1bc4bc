"""``export``: a finished run's adapter as a folder, and as a repository of the Hub."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from peft_core.commands._output import messages, print_json
from peft_core.records import InputError, View, public_mode
from peft_core.runs import home, stored_view
from peft_core.runs.folders import comparison_folder, comparison_of


def export(options: argparse.Namespace) -> int:
    """Writes the folder, then pushes it where that is asked for."""
    repository = options.push_to_hub
    token = _token_for(repository) if repository is not None else None
    from peft_core.export.finished import FinishedRun
    from peft_core.export.folders import check_target
    from peft_core.export.writing import export_run

    to = Path(options.to).expanduser().resolve()
    check_target(to)
    comparison = comparison_of(options.id)[0]
    view = stored_view(comparison)
    run = _run_of(options.id, view)
    finished = FinishedRun.of(view, run, comparison_folder(home(), comparison) / run / "adapter")
    export_run(finished, options.format, to, options.task)
    files = {path.name: path.stat().st_size for path in sorted(to.iterdir())}
    document = {"id": run, "format": options.format, "folder": str(to), "files": files, "repository": None}
    messages.print(f"{run} is at {to} ({sum(files.values()):,} bytes)", markup=False)
    if repository is not None and token is not None:
        from peft_core.export.hub import push_folder

        document["repository"] = push_folder(to, repository, token, f"Add {finished.row.label} ({options.format})")
        messages.print(f"pushed to {document['repository']}", markup=False)
    if options.json:
        print_json(document)
    return 0


def _run_of(given: str, view: View) -> str:
    """The run of an id; that of a comparison stands for its only run."""
    if comparison_of(given)[1]:
        return given
    if len(view.runs) != 1:
        raise InputError("id", given, f"it must be one of its runs: {', '.join(row.run for row in view.runs)}")
    return view.runs[0].run


def _token_for(repository: str) -> str:
    """HF_TOKEN, or what is typed at the terminal; a stored login is left alone.

    Raises:
        InputError: a public installation, a name that is none, or no token.
    """
    from peft_core.export.hub import check_repository, check_token

    if public_mode():
        raise InputError("push_to_hub", repository, "on a public installation only a visitor's own login may push")
    check_repository(repository)
    token = os.environ.get("HF_TOKEN", "")
    if not token.strip():
        if not sys.stdin.isatty():
            raise InputError("push_to_hub", repository, "there is no token; set HF_TOKEN, or type it at a terminal")
        token = getpass.getpass("Token of the Hub (used once, not stored): ")
    return check_token(token)
