"""Which columns of a table are the text, the label, the question...: said by the visitor, or guessed from the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from peft_core.records import InputError
from peft_core.tasks._contract import TaskKind

Head = Mapping[str, Sequence[str | None]]
"""The first rows of a table, column by column."""
HEAD_ROWS = 2000
ROLES: dict[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "regression": ("text", "label"),
    "pair_classification": ("text", "text2", "label"),
    "pair_regression": ("text", "text2", "label"),
    "span_qa": ("question", "context", "answers"),
    "generation": ("text", "target"),
}
"""Roles that a column must be found for, by kind."""
KINDS = tuple(kind for kind in get_args(TaskKind) if kind in ROLES)
LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "y", "sentiment", "intent", "topic", "score", "rating", "stars",
    "similarity", "gold_label", "label_text", "tag", "grade",
)  # fmt: skip
TEXT_NAMES = (
    "text", "sentence", "review", "content", "comment", "body", "message", "tweet", "document", "title", "utterance",
    "question", "description",
)  # fmt: skip
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
    ("text", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("question", "sentence"),
    ("query", "passage"), ("s1", "s2"),
)  # fmt: skip
GENERATED = (
    ("source", "target"), ("src", "tgt"), ("document", "summary"), ("article", "highlights"), ("article", "summary"),
    ("input", "output"), ("prompt", "completion"), ("prompt", "response"), ("instruction", "output"),
    ("instruction", "response"), ("question", "answer"), ("text", "summary"), ("text", "target"),
)  # fmt: skip
MOST_CLASSES_GUESSED = 50


@dataclass(frozen=True)
class Columns:
    """The kind of a task and the column of every role; `guessed` names the roles (and ``kind``) nobody gave."""

    kind: TaskKind
    roles: tuple[tuple[str, str], ...]
    guessed: tuple[str, ...] = ()

    def __getitem__(self, role: str) -> str:
        return dict(self.roles)[role]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, without repetition."""
        return tuple(dict.fromkeys(column for _, column in self.roles))


def empty(value: str | None) -> bool:
    """Nothing written, or a NaN."""
    return value is None or not value.strip() or value.strip().lower() == "nan"


def is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value


def find_columns(columns: Sequence[str], head: Head, options: Mapping[str, Any]) -> Columns:
    """Columns by role, the given ones first.

    Args:
        columns: all names. head: the first rows. options: ``kind`` and a column for a role; None: guess.

    Raises:
        InputError: a given column or kind that there is not, a role that no column fits.
    """
    given = {role: options[role] for role in ("text", "text2", "label", "question", "context", "answers", "target")
             if options.get(role) is not None}  # fmt: skip
    for role, name in given.items():
        if name not in columns:
            raise InputError(f"task_options.{role}", name, f"the columns are {_listed(columns)}")
    kind = options.get("kind")
    if kind is not None and kind not in KINDS:
        raise InputError("task_options.kind", kind, f"it must be one of {', '.join(KINDS)}")
    found = {**_guess(columns, head, given, kind), **given}
    kind = kind or _kind(found, head)
    missing = [role for role in ROLES[kind] if role not in found]
    if missing:
        raise InputError(
            f"task_options.{missing[0]}",
            None,
            f"no column looks like it for {kind}; name one of {_listed(columns)}",
        )
    roles = tuple((role, found[role]) for role in ROLES[kind])
    guessed = tuple(role for role, _ in roles if role not in given) + (() if options.get("kind") else ("kind",))
    return Columns(kind, roles, guessed)


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:12])
    return shown if len(columns) <= 12 else f"{shown} and {len(columns) - 12} more"


def _kind(found: Mapping[str, str], head: Head) -> TaskKind:
    if "context" in found and "answers" in found:
        return "span_qa"
    if "target" in found:
        return "generation"
    numbers = "label" in found and _looks_continuous(head[found["label"]])
    if "text2" in found:
        return "pair_regression" if numbers else "pair_classification"
    return "regression" if numbers else "classification"


def _looks_continuous(values: Sequence[str | None]) -> bool:
    """Numbers of which some are broken, or that are too many to be classes."""
    filled = [value.strip() for value in values if value is not None and not empty(value)]
    if not filled or not all(is_number(value) for value in filled):
        return False
    whole = all(float(value) == int(float(value)) for value in filled if float(value) == float(value) and "inf" not in
                value.lower())  # fmt: skip
    distinct = len(set(filled))
    if not whole:
        return distinct > 2
    numbered = {int(float(value)) for value in filled} in (set(range(distinct)), set(range(1, distinct + 1)))
    return distinct > MOST_CLASSES_GUESSED and not (numbered and len(filled) >= 2 * distinct)


def _guess(columns: Sequence[str], head: Head, given: Mapping[str, str], kind: str | None) -> dict[str, str]:
    by_name = {name.lower().strip(): name for name in reversed(columns)}
    if (
        (kind in (None, "span_qa"))
        and "context" in by_name
        and "question" in by_name
        and not {"label", "target"} & set(given)
    ):
        answers = next((by_name[name] for name in ("answers", "answer") if name in by_name), None)
        if answers is not None and (kind or _spans(head, by_name["context"], answers)):
            return {"question": by_name["question"], "context": by_name["context"], "answers": answers}
    label = given.get("label") or next((by_name[name] for name in LABEL_NAMES if name in by_name), None)
    if kind == "generation" or (kind is None and "label" not in given and not _few(head, label)):
        pair = _pair(by_name, GENERATED, given, ("text", "target"))
        if pair or kind == "generation":
            return pair
    found = {}
    texts = [name for name in columns if name not in (label, *given.values())]
    pair = _pair(by_name, PAIRS, given, ("text", "text2")) if kind is None or kind.startswith("pair") else {}
    if pair and label not in pair.values():
        found.update(pair)
    elif "text" not in given and (text := _longest(texts, head, by_name)):
        found["text"] = text
    if kind is not None and kind.startswith("pair") and "text2" not in found and "text2" not in given:
        rest = [name for name in texts if name != found.get("text")]
        if second := _longest(rest, head, {}):
            found["text2"] = second
    if label is None:
        rest = [name for name in columns if name not in (*found.values(), *given.values())]
        fitting = [name for name in reversed(rest) if _few(head, name) or _looks_continuous(head[name])]
        label = next((name for name in fitting if len(set(head[name])) > 1), next(iter(fitting), None))
    return found | ({"label": label} if label else {})


def _few(head: Head, column: str | None) -> bool:
    """Whether the values of a column repeat as those of classes, or are numbers."""
    if column is None:
        return False
    filled = [value for value in head[column] if not empty(value)]
    distinct = len(set(filled))
    return bool(filled) and (
        (distinct <= max(2, min(100, len(filled) // 2)) and max(len(value or "") for value in filled) < 100)
        or all(is_number(value or "") for value in filled)
    )


def _spans(head: Head, context: str, answers: str) -> bool:
    """Whether most answers stand in their contexts."""
    rows = [(c, a) for c, a in zip(head[context], head[answers], strict=True) if c and a][:100]
    inside = sum(any(text in c for text, _ in answer_list(a)) for c, a in rows)
    return bool(rows) and inside >= len(rows) / 2


def answer_list(cell: str) -> list[tuple[str, int | None]]:
    """Answers of a cell with the places of their first characters, where it tells: SQuAD's object, a list, or text."""
    if cell.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(cell)
        except ValueError:
            return [(cell, None)]
        if isinstance(value, dict):
            texts, starts = value.get("text", []), value.get("answer_start", [])
            texts = [texts] if isinstance(texts, str) else texts
            starts = [starts] if isinstance(starts, int) else starts
            if isinstance(texts, list) and isinstance(starts, list) and len(starts) in (0, len(texts)):
                return list(zip(texts, starts or [None] * len(texts), strict=True))
        if isinstance(value, list):
            entries = [entry if isinstance(entry, dict) else {"text": entry} for entry in value]
            if all(isinstance(entry.get("text"), str) for entry in entries):
                return [(entry["text"], entry.get("answer_start")) for entry in entries]
    return [(cell, None)]


def _pair(
    by_name: Mapping[str, str], pairs: Sequence[tuple[str, str]], given: Mapping[str, str], roles: tuple[str, str]
) -> dict[str, str]:
    if any(role in given for role in roles):
        return {}
    for first, second in pairs:
        if first in by_name and second in by_name:
            return {roles[0]: by_name[first], roles[1]: by_name[second]}
    return {}


def _longest(columns: Sequence[str], head: Head, by_name: Mapping[str, str]) -> str | None:
    """The column with a usual name for texts; else the one with the longest values that are not numbers."""
    named = next((by_name[name] for name in TEXT_NAMES if by_name.get(name) in columns), None)
    if named is not None:
        return named
    lengths = {
        name: sum(len(value or "") for value in head[name])
        for name in columns
        if any(not empty(value) and not is_number(value or "") for value in head[name])
    }
    return max(lengths, key=lambda name: lengths[name]) if lengths else None
