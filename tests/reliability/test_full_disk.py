"""A disk that is really full: the run at work fails and says so, the store is readable, other runs live."""

from __future__ import annotations

import pytest

from peft_core.records import RunState
from peft_core.runs import DiskFull, Limits
from tests.reliability.support import fill, small_disk
from tests.runs.support import QUICK, comparison, reached, states, steps_of, supervise, until

pytestmark = pytest.mark.reliability
FLOOR = 2**20
LIMITS = Limits(**{**vars(QUICK), "free": FLOOR})


def test_a_full_disk_costs_the_run_at_work_and_starts_are_refused_under_a_floor(tmp_path):
    with small_disk(tmp_path / "small", 32) as home, supervise(home, limits=LIMITS) as supervisor:
        long = supervisor.submit(comparison(methods=2, steps=400))
        reached(supervisor, long, 5)
        assert (home / "reserve").stat().st_size == 4 * 2**20
        fill(home / "filler")
        until(lambda: RunState.FAILED in states(supervisor.view(long)), 20)
        assert not (home / "reserve").exists(), "the reserve was given up so that the reason could be written down"
        fill(home / "filler")
        with pytest.raises(DiskFull, match=r"Only 0 MB are free on the disk of .*; delete runs"):
            supervisor.submit(comparison())
        assert [row.id for row in supervisor.comparisons()] == [long]
        (home / "filler").unlink()
        assert supervisor.wait(long, 30)
        view = supervisor.view(long)
        failed = [number for number, run in enumerate(view.runs) if run.state is RunState.FAILED]
        assert failed and all(view.runs[number].error.startswith("disk full; delete runs") for number in failed)
        for number, run in enumerate(view.runs):
            assert steps_of(view, number) == list(range(1, run.step + 1)), "the history is whole as far as it goes"
        supervisor.resume(long)
        assert supervisor.wait(long, 30)
        view = supervisor.view(long)
        assert states(view) == [RunState.FINISHED] * 2, [run.error for run in view.runs]
