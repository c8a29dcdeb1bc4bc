"""A store that another process keeps locked costs no metric, and the page goes on showing what it has."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from peft_core.records import RunState
from tests.runs.support import comparison, reached, states, steps_of, supervise

pytestmark = pytest.mark.reliability


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_no_metric_is_lost_while_the_store_is_locked(tmp_path, how):
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison(methods=1, steps=400))
        reached(supervisor, comparison_id, 5)
        with closing(sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)) as other:
            other.execute(f"BEGIN {how}")
            looks = []
            locked_until = time.monotonic() + 2
            while time.monotonic() < locked_until:
                started = time.perf_counter()
                assert supervisor.view(comparison_id).runs[0].step >= 5
                looks.append(time.perf_counter() - started)
                time.sleep(0.02)
            assert max(looks) < 0.25
            other.execute("ROLLBACK")
        assert supervisor.wait(comparison_id, 15)
        view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED]
    assert steps_of(view, 0) == list(range(1, 401))
