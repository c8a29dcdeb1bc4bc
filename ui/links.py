"""A form as the query string of an address, and such a string read back: every value is checked, moved or left out.

The names are those of the form's fields: ``model``, ``seeds``, ``methods.0``, ``methods.0.rank``, ``training.steps``,
``task_options.spectrum``. What a link says is only ever text in the fields of a form; nothing starts from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from peft_core.records import LOCKS, MAX_SEED
from ui.form import COMPARISON_FIELDS, Form, MethodRow, given

LONGEST_QUERY, LONGEST_VALUE, MOST_FIELDS, MOST_METHODS, MOST_SEEDS, MOST_NOTES = 8000, 500, 800, 64, 100, 12
NAMES = re.compile(
    r"model|task|seeds|lock|lock_to|methods\.\d{1,2}|" + "|".join(COMPARISON_FIELDS) + "|"
    r"(methods\.\d{1,2}|training|task_options)\.[A-Za-z0-9_./-]{1,120}"
)
NUMBERS: dict[str, Callable[[str], int | float]] = {"int": lambda text: int(text[:400]), "float": float}
Field = Mapping[str, Any]


def query_of(form: Form) -> str:
    """The query string that gives the form again; what is empty is left out."""
    pairs = [(name, getattr(form, name)) for name in ("model", "task")]
    pairs += [(f"task_options.{name}", text) for name, text in given(form.task_options).items()]
    for place, row in enumerate(form.methods):
        pairs.append((f"methods.{place}", row.id))
        pairs += [(f"methods.{place}.{name}", text) for name, text in given(row.options).items()]
    pairs += [(name, text) for name, text in given({name: getattr(form, name) for name in ("lock", "lock_to")}).items()]
    pairs.append(("seeds", form.seeds))
    pairs += [(f"training.{name}", text) for name, text in given(form.training).items()]
    pairs += given({name: getattr(form, name) for name in COMPARISON_FIELDS}).items()
    return urlencode([(name, text) for name, text in pairs if text], safe=",:/@", quote_via=quote)


def form_of(pairs: Sequence[tuple[str, str]], catalogue: Mapping[str, Any]) -> tuple[Form | None, list[str]]:
    """The form that a query string asks for, and a sentence for each value that was moved or left out.

    Args:
        pairs: names and values, decoded. Names that are no field of the form are ignored.
        catalogue: what the form offers.

    Returns:
        None for a query string without a field of the form.
    """
    known = {name: _plain(value) for name, value in pairs[:MOST_FIELDS] if NAMES.fullmatch(name)}
    if not known:
        return None, []
    reading = _Reading(known, catalogue)
    form = reading.form()
    more = len(reading.notes) - MOST_NOTES
    return form, reading.notes[:MOST_NOTES] + ([f"And {more} more."] if more > 0 else [])


def _plain(text: str) -> str:
    """Without control characters, bounded."""
    return "".join(letter for letter in text[:LONGEST_VALUE] if letter.isprintable()).strip()


class _Reading:
    """One query string being read."""

    def __init__(self, values: Mapping[str, str], catalogue: Mapping[str, Any]) -> None:
        self._values, self._catalogue = values, catalogue
        self.notes: list[str] = []

    def form(self) -> Form:
        methods, places = self._methods()
        task = self._values.get("task", "")
        own = {name: self._values[name] for name in COMPARISON_FIELDS if name in self._values}
        return Form(
            model=self._values.get("model", ""),
            task=task,
            task_options=self._checked("task_options", self._under("task_options"), self._task_fields(task), free=True),
            methods=methods,
            seeds=self._seeds(),
            training=self._checked("training", self._under("training"), self._catalogue["training"]),
            **self._checked("", own, self._catalogue["comparison"]),
            **self._lock(places),
        )

    def _under(self, head: str) -> dict[str, str]:
        return {name[len(head) + 1 :]: text for name, text in self._values.items() if name.startswith(head + ".")}

    def _methods(self) -> tuple[list[MethodRow], dict[str, str]]:
        """The rows, and where each number of the link has gone."""
        offered = {method["id"]: method["fields"] for method in self._catalogue["methods"]}
        rows: list[MethodRow] = []
        places: dict[str, str] = {}
        numbers = sorted({name.split(".")[1] for name in self._values if name.startswith("methods.")}, key=int)
        for number in numbers[:MOST_METHODS]:
            name = f"methods.{number}"
            method = self._values.get(name, "")
            if method not in offered:
                self._left_out(name, method, "there is no such method")
                continue
            places[number] = str(len(rows))
            rows.append(MethodRow(id=method, options=self._checked(name, self._under(name), offered[method])))
        return rows, places

    def _lock(self, places: Mapping[str, str]) -> dict[str, str]:
        lock, to = self._values.get("lock", ""), self._values.get("lock_to", "")
        if lock and lock not in LOCKS:
            self._left_out("lock", lock, "it must be one of " + ", ".join(LOCKS))
            return {}
        if to and to not in places:
            self._left_out("lock_to", to, "there is no such row")
        place = places.get(to, "0")
        return {"lock": lock, "lock_to": place if place != "0" else ""}

    def _task_fields(self, task: str) -> list[Field]:
        entries = [entry for entry in self._catalogue["tasks"] if entry["id"] in task.split("+")]
        alone = len(task.split("+")) == 1
        return [
            {**option, "name": option["name"] if alone else f"{entry['id']}.{option['name']}"}
            for entry in entries
            for option in entry["options"]
        ]

    def _seeds(self) -> str:
        text = self._values.get("seeds", "")
        parts = text.replace(",", " ").split()
        good = [part for part in parts if part.isascii() and part.isdigit() and int(part[:30]) <= MAX_SEED]
        kept = list(dict.fromkeys(str(int(part)) for part in good))[:MOST_SEEDS]
        if len(kept) != len(parts):
            self._left_out("seeds", text, "seeds are different whole numbers from 0 to 2^63 - 1, at most 100")
        return ", ".join(kept or ["0", "1"])

    def _checked(
        self, head: str, values: Mapping[str, str], fields: Sequence[Field], free: bool = False
    ) -> dict[str, str]:
        """Values of fields that exist. free: others are kept as text, as a table's own columns are."""
        by_name = {field["name"]: field for field in fields}
        found = {}
        for name, text in values.items():
            where = f"{head}.{name}" if head else name
            if name in by_name:
                kept = self._value(where, text, by_name[name])
            elif free:
                kept = text
            else:
                kept = self._left_out(where, text, "there is no such option")
            if kept:
                found[name] = kept
        return found

    def _value(self, where: str, text: str, field: Field) -> str:
        kind, choices = field.get("type", "str"), field.get("choices")
        if not text or (field.get("nullable") and text.lower() in ("none", "null")):
            return text
        allowed = [str(choice) for choice in choices] if choices else ["true", "false"] if kind == "bool" else None
        if allowed is not None:
            return text if text in allowed else self._left_out(where, text, "it must be one of " + ", ".join(allowed))
        return self._number(where, text, field) if kind in NUMBERS else text

    def _number(self, where: str, text: str, field: Field) -> str:
        try:
            value = NUMBERS[field["type"]](text)
        except ValueError:
            return self._left_out(where, text, "it must be a number")
        if isinstance(value, float) and not math.isfinite(value):
            return self._left_out(where, text, "it must be a number")
        low, high = field.get("min"), field.get("max")
        for bound, beyond, exclusive in (
            (low, low is not None and value <= low, field.get("exclusive_min")),
            (high, high is not None and value >= high, field.get("exclusive_max")),
        ):
            if beyond and exclusive:
                return self._left_out(where, text, f"it must not reach {bound}")
            if beyond and value != bound:
                self.notes.append(f"{where} was {text[:40]} and is now {bound}, the nearest value there is.")
                return str(bound)
        return text

    def _left_out(self, where: str, text: str, why: str) -> str:
        self.notes.append(f"{where} was {text[:40]!r} and is left out: {why}.")
        return ""
