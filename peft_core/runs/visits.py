"""Which visitor of a public page asked for a comparison, and which comparisons a visitor may see."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from peft_core.runs.rows import UNFINISHED

SEEN = "AND comparisons.id IN (SELECT comparison FROM visits WHERE visitor = ? OR private = 0)"
"""Conditions for one parameter, the visitor: what nobody asked for on a public page is shown to nobody there."""
OWN = "comparisons.id IN (SELECT comparison FROM visits WHERE visitor = ?)"


@dataclass(frozen=True)
class Visit:
    """visitor, address: keyed hashes, not the cookie and the address themselves. private: for this visitor alone."""

    visitor: str
    address: str
    private: bool


def keep(connection: sqlite3.Connection, comparison_id: str, visit: Visit) -> None:
    """Store who asked for a comparison; within the transaction that stores the comparison."""
    connection.execute(
        "INSERT INTO visits (comparison, visitor, address, private) VALUES (?, ?, ?, ?)",
        (comparison_id, visit.visitor, visit.address, visit.private),
    )


def visit_of(connection: sqlite3.Connection, comparison_id: str) -> Visit | None:
    """Who asked for a comparison; None where it was not asked for on a public page, or is gone."""
    row = connection.execute("SELECT * FROM visits WHERE comparison = ?", (comparison_id,)).fetchone()
    return None if row is None else Visit(row["visitor"], row["address"], bool(row["private"]))


def unfinished(connection: sqlite3.Connection) -> list[Visit]:
    """The visits of all comparisons that have not ended."""
    marks = ", ".join("?" * len(UNFINISHED))
    query = f"SELECT * FROM visits WHERE comparison IN (SELECT comparison FROM runs WHERE state IN ({marks}))"
    return _visits(connection.execute(query, list(UNFINISHED)))


def ended_beyond(connection: sqlite3.Connection, kept: int) -> list[str]:
    """The visitors' comparisons that have ended, without the newest `kept`."""
    marks = ", ".join("?" * len(UNFINISHED))
    query = f"""SELECT comparisons.id FROM comparisons JOIN visits ON comparison = comparisons.id
        WHERE comparisons.id NOT IN (SELECT comparison FROM runs WHERE state IN ({marks}))
        ORDER BY number DESC LIMIT -1 OFFSET ?"""
    return [row["id"] for row in connection.execute(query, [*UNFINISHED, kept])]


def _visits(found: Iterable[sqlite3.Row]) -> list[Visit]:
    return [Visit(row["visitor"], row["address"], bool(row["private"])) for row in found]
