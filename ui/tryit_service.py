"""What the Try it tab asks for, as plain functions over the store and the models' process. No gradio, no HTTP."""

from __future__ import annotations

import base64
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from peft_core.records import ComparisonRow, Frozen, InputError, RunState, View, public_mode
from peft_core.report import tables
from peft_core.report.palette import look
from peft_core.report.series import labels
from peft_core.runs import Refused
from peft_core.runs.folders import comparison_folder
from ui.answering import Answering
from ui.form import FormError
from ui.service import title
from ui.uploads import Uploads

log = logging.getLogger(__name__)
NEWEST = 200
OFFERED = 40
MOST_RUNS = 24
LONGEST_TEXT = 20_000
LARGEST_PICTURE = 10 * 2**20
NO_EVENTS = 2**62
KEPT_TABLES = 8
PAGE = 20
Texts = dict[Literal["text", "text2", "question", "context"], str]


class KeptRuns(Protocol):
    """The part of the supervisor that the tab uses."""

    home: Path

    def recent(self, newest: int) -> list[ComparisonRow]: ...

    def view(self, comparison_id: str, after: int = 0) -> View: ...


class Origins(Protocol):
    """The part of the engine that the tab uses."""

    def task_origin(self, task: str) -> str: ...


class Whom(Frozen):
    """Who is asked: the runs of a comparison's seed, by default its first, on one of its tasks."""

    comparison: str = Field("", max_length=40)
    seed: int | None = None
    task: str | None = Field(None, max_length=1000)


class Question(Whom):
    """Texts by role. visitor: any name; of one visitor's questions only the latest needs an answer."""

    visitor: str = Field("", max_length=40)
    input: Texts = Field(default_factory=dict)


class Rows(Whom):
    """Which rows of a table, in which order. sort: row, truth, spread, or the number of a method.

    right: a method's number; only rows that it, or with `alone` it alone, answers as the task has it.
    """

    offset: int = Field(0, ge=0)
    limit: int = Field(PAGE, ge=1, le=100)
    sort: str = Field("row", pattern=r"^(row|truth|spread|\d{1,2})$")
    up: bool = True
    search: str = Field("", max_length=200)
    truth: str = Field("", max_length=400)
    right: int | None = Field(None, ge=0)
    alone: bool = False


@dataclass
class Table:
    """A table that is made or there."""

    state: Literal["working", "ready", "failed"] = "working"
    done: int = 0
    of: int = 0
    message: str = ""
    content: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """Finished runs with their weights, one a method. missing: labels without one."""

    view: View
    seed: int
    seeds: list[int]
    runs: list[str]
    labels: list[str]
    missing: list[str]


class TryService:
    """The tab's questions."""

    def __init__(self, runs: KeptRuns, models: Answering, engine: Origins, uploads: Uploads) -> None:
        self._runs, self._models, self._engine, self._uploads = runs, models, engine, uploads
        self._tables: OrderedDict[tuple[Any, ...], Table] = OrderedDict()
        self._lock = threading.Lock()
        self._makers = ThreadPoolExecutor(2, thread_name_prefix="disagreements")

    # --- who can be asked ---

    def menu(self, more: str = "") -> dict[str, Any]:
        """Comparisons whose weights are here, newest first, finished ones before others. more: an id to offer, too.

        nothing: where there are none, why and what to do.
        """
        known = self._runs.recent(NEWEST)
        rows = [row for row in known if self._kept(row)][:OFFERED]
        if more and more not in [row.id for row in rows]:
            rows += self._found(more)
        rows.sort(key=lambda row: row.state is not RunState.FINISHED)
        live = any(not row.state.ended for row in known)
        return {
            "comparisons": [
                {
                    "id": row.id,
                    "title": title(row),
                    "state": str(row.state),
                    "imported": row.environment.get("imported") is not None,
                }
                for row in rows
            ],
            "nothing": "" if rows else _nothing(live),
            "live": live and not rows,
            "picture_limit": LARGEST_PICTURE,
            "text_limit": LONGEST_TEXT,
        }

    def _kept(self, row: ComparisonRow) -> bool:
        return any(comparison_folder(self._runs.home, row.id).glob("*/adapter/adapter.json"))

    def _found(self, comparison: str) -> list[ComparisonRow]:
        try:
            row = self._runs.view(comparison, NO_EVENTS).comparison
        except InputError:
            return []
        return [row] if self._kept(row) else []

    def _chosen(self, whom: Whom) -> Chosen:
        view = self._runs.view(whom.comparison, NO_EVENTS)
        folder = comparison_folder(self._runs.home, view.comparison.id)
        there = [
            row
            for row in view.runs
            if row.state is RunState.FINISHED and (folder / row.run / "adapter" / "adapter.json").is_file()
        ]
        seeds = sorted({row.seed for row in there}, key=view.comparison.spec.seeds.index)
        if not seeds:
            raise InputError("comparison", whom.comparison, "it has no finished run whose weights were kept")
        if whom.seed is not None and whom.seed not in seeds:
            raise InputError("seed", whom.seed, f"it must be one of {', '.join(map(str, seeds))}")
        seed = seeds[0] if whom.seed is None else whom.seed
        of_seed = [row for row in there if row.seed == seed][:MOST_RUNS]
        missing = [label for label in labels(view) if label not in {row.label for row in of_seed}]
        return Chosen(view, seed, seeds, [row.run for row in of_seed], [row.label for row in of_seed], missing)

    def described(self, whom: Whom) -> dict[str, Any]:
        """How the models of a comparison can be asked, and who they are."""
        chosen = self._chosen(whom)
        found = self._models.ask(self._command("describe", whom, chosen))
        try:
            self._allow_rows(chosen.view)
        except Refused as error:
            found |= {"examples": [], "why_no_examples": str(error)}
        places = {label: place for place, label in enumerate(labels(chosen.view))}
        return tables.strict(
            found
            | {
                "comparison": chosen.view.comparison.id,
                "title": title(chosen.view.comparison),
                "seed": chosen.seed,
                "seeds": chosen.seeds,
                "runs": [
                    {"run": run, "label": label, "look": vars(look(places[label]))}
                    for run, label in zip(chosen.runs, chosen.labels, strict=True)
                ],
                "missing": chosen.missing,
            }
        )

    def _command(self, kind: str, whom: Whom, chosen: Chosen) -> dict[str, Any]:
        return {"kind": kind, "comparison": chosen.view.comparison.id, "runs": chosen.runs, "task": whom.task}

    # --- questions ---

    def ask(self, question: Question) -> dict[str, Any]:
        """Every method's answer to texts; ``late`` where the visitor has asked again since."""
        for role, text in question.input.items():
            if not text.strip():
                raise InputError(role, text, "type something first")
            if len(text) > LONGEST_TEXT:
                allowed = f"it may have {LONGEST_TEXT:,} characters"
                raise InputError(role, f"{len(text):,} characters long", allowed)
        return self._answers(question, {**question.input}, drawn=False)

    def ask_picture(self, question: Question, picture: bytes, *, drawn: bool) -> dict[str, Any]:
        """The same for the bytes of an image file. drawn: light ink on dark ground, from the page's canvas."""
        if not picture:
            raise InputError("image", "an empty file", "choose a picture first")
        check_picture(len(picture))
        return self._answers(question, {"image": base64.b64encode(picture).decode()}, drawn=drawn)

    def _answers(self, question: Question, entry: Mapping[Any, str], *, drawn: bool) -> dict[str, Any]:
        command = self._command("ask", question, self._chosen(question))
        return tables.strict(self._models.ask(command | {"visitor": question.visitor, "input": entry, "drawn": drawn}))

    # --- rows with different answers ---

    def begin_table(self, whom: Whom) -> None:
        """Have the table made, unless it is there or being made."""
        chosen = self._chosen(whom)
        self._allow_rows(chosen.view)
        if len(chosen.runs) < 2:
            raise InputError("comparison", whom.comparison, "two methods are needed to disagree; it has one here")
        key = self._key(whom, chosen)
        with self._lock:
            there = self._tables.get(key)
            if there is not None and there.state != "failed":
                return
            if sum(table.state == "working" for table in self._tables.values()) >= KEPT_TABLES:
                raise Refused("Many tables are being made; try again when one of them is ready.")
            table = self._tables[key] = Table()
            for old in [old for old, kept in self._tables.items() if kept.state != "working"]:
                if len(self._tables) <= KEPT_TABLES:
                    break
                del self._tables[old]
        self._makers.submit(self._make, table, self._command("table", whom, chosen))

    def _make(self, table: Table, command: Mapping[str, Any]) -> None:
        def told(done: int, of: int) -> None:
            table.done, table.of = done, of

        try:
            table.content = tables.strict(self._models.ask(command, told, None))
            table.state = "ready"
        except (FormError, Refused) as error:
            table.message, table.state = str(error), "failed"
        except Exception:
            log.exception("a table failed")
            table.message, table.state = "The table could not be made; the server's log says why.", "failed"

    def table(self, rows: Rows) -> dict[str, Any]:
        """How far a table is; once it is ready a page of its rows."""
        chosen = self._chosen(rows)
        self._allow_rows(chosen.view)
        key = self._key(rows, chosen)
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
        if table is None:
            return {"state": "none"}
        if table.state != "ready":
            return {"state": table.state, "done": table.done, "of": table.of, "message": table.message}
        return {"state": "ready"} | page_of(table.content, rows)

    def _key(self, whom: Whom, chosen: Chosen) -> tuple[Any, ...]:
        return (chosen.view.comparison.id, whom.task, tuple(chosen.runs))

    def _allow_rows(self, view: View) -> None:
        """On a public page no rows are shown of files of the server but uploaded ones."""
        tasks = view.comparison.spec.task
        if not public_mode() or self._uploads.holds(tasks):
            return
        if any(self._engine.task_origin(task.strip()) == "local" for task in tasks.split("+")):
            raise Refused("This is a public page, which shows no rows of files on its server.")

    def close(self) -> None:
        """Make no more tables."""
        self._makers.shutdown(wait=False, cancel_futures=True)


def check_picture(size: int) -> None:
    """Raises an InputError for a file of too many bytes."""
    if size > LARGEST_PICTURE:
        raise InputError("image", f"{size:,} bytes large", f"it may have {LARGEST_PICTURE:,} bytes")


def page_of(content: Mapping[str, Any], asked: Rows) -> dict[str, Any]:
    """The wanted rows of a table, and what it says of itself. Rows that have no value come last."""
    found = [row for row in content["rows"] if _wanted(row, asked)]
    keyed = [(_sort_key(row, asked.sort), row) for row in found]
    known = sorted((pair for pair in keyed if pair[0] is not None), key=lambda pair: pair[0], reverse=not asked.up)
    ordered = [row for _, row in known] + [row for key, row in keyed if key is None]
    head = {name: value for name, value in content.items() if name != "rows"}
    truths = sorted({str(row["truth"]) for row in content["rows"]}) if content["problem"] == "classification" else []
    part = ordered[asked.offset : asked.offset + asked.limit]
    return head | {"rows": part, "total": len(found), "kept": len(content["rows"]), "truths": truths}


def _wanted(row: Mapping[str, Any], asked: Rows) -> bool:
    if asked.truth and str(row["truth"]) != asked.truth:
        return False
    if asked.right is not None:
        marks = row["right"]
        if asked.right >= len(marks) or not marks[asked.right]:
            return False
        if asked.alone and sum(map(bool, marks)) > 1:
            return False
    if not asked.search.strip():
        return True
    texts = [value for role, value in row["input"].items() if role != "image"]
    words = " ".join(map(str, [*texts, row["truth"], *row["answers"]])).casefold()
    return all(word in words for word in asked.search.casefold().split())


def _sort_key(row: Mapping[str, Any], sort: str) -> Any:
    value = row[sort] if not sort.isdigit() else (row["answers"][int(sort) : int(sort) + 1] or [None])[0]
    if isinstance(value, list):
        value = value[0]
    return value.casefold() if isinstance(value, str) else value


def _nothing(live: bool) -> str:
    if live:
        return "A comparison is being trained; its methods can be asked here as soon as the first of them has finished."
    return (
        "There is nothing to try yet: methods can be asked once a comparison of yours has finished here, for the "
        "shipped example comes without its weights. Start one in the Compare tab; a minute is enough for the first."
    )
