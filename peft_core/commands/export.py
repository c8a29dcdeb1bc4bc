"""``export``: a finished run's adapter as a folder or a repository. ``inspect``: what is in such a folder."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_core.commands._output import messages, print_json, print_table
from peft_core.commands.data import task_options
from peft_core.records import InputError, View, parse_scalar, public_mode
from peft_core.runs import home, stored_view
from peft_core.runs.folders import comparison_folder, comparison_of

if TYPE_CHECKING:
    from peft_core.export.finished import FinishedRun

LONGEST_LINE = 2000


def export(options: argparse.Namespace) -> int:
    """Writes the folder, then pushes it where that is asked for; a push without a folder leaves none."""
    token = _token_for(options)
    from peft_core.export.finished import FinishedRun
    from peft_core.export.folders import check_target

    to = None if options.to is None else Path(options.to).expanduser().resolve()
    if to is not None:
        check_target(to)
    comparison = comparison_of(options.id)[0]
    view = stored_view(comparison)
    run = _run_of(options.id, view)
    finished = FinishedRun.of(view, run, comparison_folder(home(), comparison) / run / "adapter")
    files = {} if to is None else _written(finished, options, to)
    address = None if token is None else _pushed(finished, options, to, token)
    if options.json:
        folder = None if to is None else str(to)
        print_json({"id": run, "format": options.format, "folder": folder, "files": files, "repository": address})
    return 0


def _written(finished: FinishedRun, options: argparse.Namespace, to: Path) -> dict[str, int]:
    """The run as a folder: bytes by file."""
    from peft_core.export.writing import export_run

    export_run(finished, options.format, to, options.task, options.model)
    files = {path.name: path.stat().st_size for path in sorted(to.iterdir())}
    messages.print(f"{finished.row.run} is at {to} ({sum(files.values()):,} bytes)", markup=False, soft_wrap=True)
    return files


def _pushed(finished: FinishedRun, options: argparse.Namespace, to: Path | None, token: str) -> str:
    """The written folder, or the run by itself, as a repository: its address."""
    from peft_core.export.hub import message_of, push_folder, push_run

    kind, repository, new = options.format, options.push_to_hub, options.new_repository
    if to is None:
        address = push_run(finished, kind, repository, token, options.task, options.model, new=new)
    else:
        address = push_folder(to, repository, token, message_of(finished, kind), new=new)
    messages.print(f"pushed to {address}", markup=False)
    return address


def import_folder(options: argparse.Namespace) -> int:
    """Puts an adapter of a folder into the store as a finished run."""
    from peft_core.export.imported_run import ImportedRun
    from peft_core.export.importing import read_adapter
    from peft_core.runs.adopt import adopt

    folder = Path(options.folder).expanduser().resolve()
    asked = _task_of(options)
    with tempfile.TemporaryDirectory() as scratch:
        made = ImportedRun.of(read_adapter(folder, options.model), Path(scratch), asked)
        run = adopt(home(), made.spec, made.facts(folder.name), made.config, made.result, made.records, Path(scratch))
    said = f"; {made.result.split}" if asked else ""
    messages.print(f"{folder.name} is the run {run}{said}", markup=False, soft_wrap=True)
    if options.json:
        score = {name: value for name, value in made.result.score.items() if value is not None}
        print_json({"id": run, "method": made.method, "model": made.spec.model, "score": score or None})
    return 0


def _task_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """What of a comparison the options say: the task to score an imported adapter on; None where there is none."""
    if options.task is None:
        for name in ("task_option", "eval_rows"):
            if getattr(options, name):
                raise InputError(name, getattr(options, name), "it takes a --task to score the adapter on")
        return None
    rows = None if options.eval_rows is None else parse_scalar(options.eval_rows)
    return {"task": options.task, "task_options": task_options(options.task_option), "eval_rows": rows}


def inspect(options: argparse.Namespace) -> int:
    """Prints the rank report of an adapter, and writes a smaller one where that is asked for."""
    energy = _share(options.compress)
    if (options.to is None) != (options.compress is None):
        raise InputError("to", options.to, "a smaller adapter takes both --compress and --to")
    from peft_core.export.rank_report import ENERGY, inspect_folder

    folder = Path(options.folder).expanduser().resolve()
    report = inspect_folder(folder, ENERGY if energy is None else energy, options.model).described()
    if energy is not None:
        from peft_core.export.compress import compress_folder

        to = Path(options.to).expanduser().resolve()
        compress_folder(folder, energy, to, options.model)
        report["compressed"] = {
            "folder": str(to),
            "bytes": sum(path.stat().st_size for path in to.glob("*.safetensors")),
        }
    print_json(report) if options.json else _print_report(report)
    return 0


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError("compress", text, "it must be a share above 0 and at most 1, such as 0.99") from None


def _print_report(report: dict[str, Any]) -> None:
    share = f"rank at {100 * report['energy']:g} %"
    columns = ("site", "shape", "inner", "numerical", "effective", "stable", "norm", share, "parameters", "spectrum")
    print_table(
        columns,
        [
            layer
            | {
                "shape": "x".join(map(str, layer["shape"])),
                share: layer["rank_at_energy"],
                "spectrum": _short(layer["spectrum"]),
            }
            for layer in report["layers"]
        ],
    )
    total = report["total"]
    messages.print(
        f"{report['kind']} on {report['base_model'] or 'an unnamed base'}: {total['parameters']:,} parameters in "
        f"{len(report['layers'])} maps and {total['other_parameters']:,} beside them; mean rank "
        f"{total['numerical_mean']:.4g} numerical, {total['effective_mean']:.4g} effective; at "
        f"{100 * report['energy']:g} % of the energy plain pairs of {total['parameters_at_energy']:,} would do",
        markup=False,
        soft_wrap=True,
    )
    if "compressed" in report:
        written = report["compressed"]
        messages.print(
            f"the smaller adapter is at {written['folder']} ({written['bytes']:,} bytes)", markup=False, soft_wrap=True
        )


def _short(spectrum: list[float]) -> str:
    """The first values and the last."""
    shown = [f"{value:.3g}" for value in spectrum]
    return " ".join(shown if len(shown) <= 5 else [*shown[:3], "...", shown[-1]])


def _run_of(given: str, view: View) -> str:
    """The run of an id; that of a comparison stands for its only run."""
    if comparison_of(given)[1]:
        return given
    if len(view.runs) != 1:
        raise InputError("id", given, f"it must be one of its runs: {', '.join(row.run for row in view.runs)}")
    return view.runs[0].run


def _token_for(options: argparse.Namespace) -> str | None:
    """HF_TOKEN, or what is typed at the terminal or piped; a stored login is used for an empty piped line alone.

    Returns:
        None where nothing is to be pushed.

    Raises:
        InputError: options that do not go together, a public installation whose visitor pipes no token, a
            name that is none, or no token.
    """
    repository = options.push_to_hub
    if repository is None:
        for name in ("token_stdin", "new_repository"):
            if getattr(options, name):
                raise InputError(name, True, "it takes --push-to-hub")
        if options.to is None:
            raise InputError("to", None, "it must name a folder, unless --push-to-hub is given")
        return None
    from peft_core.export.hub import check_own_login, check_repository, check_token, own_login

    if options.token_stdin:
        check_repository(repository)
        token = sys.stdin.readline(LONGEST_LINE).strip()
        return check_own_login(repository, token if token or public_mode() else own_login(repository))
    if public_mode():
        raise InputError("push_to_hub", repository, "on a public installation only a visitor's own login may push")
    check_repository(repository)
    token = os.environ.get("HF_TOKEN", "")
    if not token.strip():
        if not sys.stdin.isatty():
            raise InputError("push_to_hub", repository, "there is no token; set HF_TOKEN, or type it at a terminal")
        token = getpass.getpass("Token of the Hub (used once, not stored): ")
    return check_token(token)
