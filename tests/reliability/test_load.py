"""Viewers of the real page while a comparison trains: a short `bench --what app`, against five times its bars."""

from __future__ import annotations

import pytest

from peft_core.commands._viewers import CLOSING, WATCHING
from peft_core.commands.bench_app import delays, rows, watch

pytestmark = pytest.mark.reliability
VIEWERS, SECONDS, SLACK = 10, 3, 5


def test_viewers_are_answered_while_a_run_trains_and_closing_a_tab_changes_nothing(tmp_path):
    (tmp_path / "home").mkdir()
    found = watch(tmp_path, VIEWERS, SECONDS, comparisons=1)
    assert found.seen.failures == []
    assert found.seen.held == VIEWERS  # a stream of heartbeats for every tab
    polls = {phase: [its for its, _ in found.seen.polls].count(phase) for phase in (WATCHING, CLOSING)}
    assert polls[WATCHING] > 2 * VIEWERS, "each has asked more than twice"
    assert polls[CLOSING] >= VIEWERS // 2, "those that stayed go on"
    told = delays(found)
    assert len(told) == sum(last - first + 1 for _, _, first, last in found.seen.new) > VIEWERS, "steps came to viewers"
    assert min(told) > -0.001, "none came before it was recorded, but for the clock's milliseconds"
    by_name = {row["measurement"]: row for row in rows(found)}
    for row in by_name.values():
        assert row["bar"] is None or row["value"] <= SLACK * row["bar"], row
    assert found.stopped == 0 and found.steps > 0
