"""Ranks that a finished run has learned, as an option of another run: `rank_pattern=RUN` becomes the ranks themselves.

That happens before a comparison is stored, so that its spec, and every run's frozen config, hold what is trained even
when the run that they came from is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from peft_core.records import ComparisonSpec, InputError, MethodSpec, RunState, View, public_mode
from peft_core.runs.folders import comparison_of, home, unknown
from peft_core.runs.reader import Reader

OPTION = "rank_pattern"
MAX_FILE = 1_000_000
FindView = Callable[[str], View]
"""From a comparison's id to the comparison with all its events; raises `InputError` where there is none."""


def stored_view(comparison_id: str) -> View:
    """A comparison of the user's store, which is only read, and not made where there is none."""
    store = home() / "store.sqlite"
    if not store.is_file():
        raise unknown(comparison_id)
    return Reader(store).view(comparison_id)


def with_learned_ranks(spec: ComparisonSpec, find: FindView) -> ComparisonSpec:
    """The comparison with the ranks in place of the runs or files that hold them.

    Raises:
        InputError: a run that is unknown, has not finished or has no ranks, or a file that does not hold any.
    """
    methods = tuple(ranks_of_method(method, find) for method in spec.methods)
    if methods == spec.methods:
        return spec
    return ComparisonSpec.model_validate({**dict(spec), "methods": methods})


def ranks_of_method(method: MethodSpec, find: FindView) -> MethodSpec:
    """The method with its ranks written out; itself where it names no run and no file."""
    given = method.options.get(OPTION)
    if not isinstance(given, str):
        return method
    from peft_core.methods._rank_pattern import is_pattern, write_pattern  # brings torch, which nothing else here needs

    if is_pattern(given):
        return method
    try:
        ranks, source = _from_run(given, find) if _is_run(given) else _from_file(given)
        pattern = write_pattern(ranks, source)
    except InputError as error:
        raise InputError(f"{method.id}.{OPTION}", given, error.allowed) from None
    return method.model_copy(update={"options": {**method.options, OPTION: pattern}})


def _is_run(text: str) -> bool:
    try:
        return comparison_of(text)[1]
    except InputError:
        return False


def _from_run(run: str, find: FindView) -> tuple[dict[str, int], str]:
    view = find(comparison_of(run)[0])
    row = next((row for row in view.runs if row.run == run), None)
    if row is None or row.state != RunState.FINISHED or row.result is None:
        raise InputError(OPTION, run, "it must be a finished run")
    return final_ranks(view.events, run, row.result.selected_step), run


def final_ranks(events: Iterable[Mapping[str, Any]], run: str, step: int) -> dict[str, int]:
    """Numerical rank of every adapted map's weight update at the step that the run was left at.

    An allocator's zeroed or never activated directions add nothing to the update, so this is the rank it has learned.

    Raises:
        InputError: the run has no weight updates of its own.
    """
    found = [event for event in events if event["event"] == "rank" and event["run"] == run and event["step"] == step]
    if not found or found[-1]["what"] != "delta" or any("@" in layer["site"] for layer in found[-1]["layers"]):
        raise InputError(OPTION, run, "it must be a run of one low-rank method that has one update a map")
    return {layer["site"]: layer["numerical"] for layer in found[-1]["layers"]}


def _from_file(name: str) -> tuple[dict[str, int], str]:
    if public_mode():
        raise InputError(OPTION, name, "on a public page it must be a run's id or written out")
    path = Path(name)
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(OPTION, name, f"the file must have at most {MAX_FILE:,} bytes")
        ranks = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(OPTION, name, "it must be the id of a finished run, a JSON file, or written out") from None
    except ValueError:
        raise InputError(OPTION, name, "the file must be JSON: an object of ranks by name of the map") from None
    right = isinstance(ranks, dict) and all(type(rank) is int and rank >= 0 for rank in ranks.values())
    if not right:
        raise InputError(OPTION, name, "the file must be a JSON object of whole ranks by name of the map")
    return ranks, path.stem if path.stem.isidentifier() else "file"
