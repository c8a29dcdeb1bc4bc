"""The queue, what is refused, and what viewers see."""

from __future__ import annotations

import threading

import pytest

from peft_core.records import InputError, Offer, RunState
from peft_core.runs import DiskFull, Limits, QueueFull, Refused, board
from peft_core.runs.machine import oom_kills, usable_cores
from peft_core.runs.scheduler import CLOSE_SECONDS
from tests.runs.support import comparison, reached, states, steps_of, supervise, until


@pytest.fixture
def supervisor(tmp_path):
    with supervise(tmp_path, "thread", max_queue=2) as made:
        yield made


def test_comparisons_wait_in_their_order(supervisor):
    ids = [supervisor.submit(comparison(methods=1, steps=40)) for _ in range(3)]
    reached(supervisor, ids[0], 1)
    assert [supervisor.view(number).comparison.queue_place for number in ids] == [None, 1, 2]
    assert {row.id: row.queue_place for row in supervisor.comparisons()} == dict(zip(ids, (None, 1, 2), strict=True))
    assert [row.id for row in supervisor.comparisons()] == ids[::-1]
    supervisor.cancel(ids[1])
    assert states(supervisor.view(ids[1])) == [RunState.CANCELLED]
    assert supervisor.view(ids[2]).comparison.queue_place == 1
    assert supervisor.wait(ids[2], 10)
    assert states(supervisor.view(ids[0])) == states(supervisor.view(ids[2])) == [RunState.FINISHED]


def test_a_full_queue_is_refused_and_a_place_that_is_free_again_is_given(supervisor):
    ids = [supervisor.submit(comparison(steps=500)) for _ in range(3)]
    with pytest.raises(QueueFull, match="The queue is full: 2 comparisons are waiting"):
        supervisor.submit(comparison())
    assert len(supervisor.comparisons()) == 3
    supervisor.cancel(ids[1])
    with pytest.raises(QueueFull):
        for _ in range(2):
            supervisor.submit(comparison())


def test_several_comparisons_train_at_once_where_that_is_wanted(tmp_path):
    with supervise(tmp_path, "thread", concurrency=2) as supervisor:
        ids = [supervisor.submit(comparison(methods=1, steps=60)) for _ in range(2)]
        for comparison_id in ids:
            reached(supervisor, comparison_id, 2)
        assert [supervisor.view(number).comparison.state for number in ids] == [RunState.RUNNING] * 2


def test_what_cannot_run_is_refused_and_not_stored(supervisor):
    with pytest.raises(InputError, match="it must be one of stand-in"):
        supervisor.submit(comparison().model_copy(update={"model": "missing"}))
    assert supervisor.comparisons() == []


def test_nothing_is_started_without_room_on_the_disk(tmp_path):
    with supervise(tmp_path, "thread", limits=Limits(free=2**60)) as supervisor:
        with pytest.raises(DiskFull, match="MB are free on the disk"):
            supervisor.submit(comparison())
        assert supervisor.comparisons() == []


@pytest.mark.parametrize("call", ["view", "cancel", "resume", "delete", "wait", "folder"])
@pytest.mark.parametrize("given", ["nothing", "aaaaaaaa", "aaaaaaaa-1", "../store"])
def test_unknown_ids_are_refused_everywhere(supervisor, call, given):
    with pytest.raises(InputError, match="there is no comparison or run with this id"):
        getattr(supervisor, call)(given)


def test_an_executor_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="process, thread"):
        supervise(tmp_path, "cloud")


def test_progress_and_remaining_time_are_told(supervisor):
    comparison_id = supervisor.submit(comparison(methods=2, steps=100, step_seconds=0.01))
    reached(supervisor, comparison_id, 30)
    row = supervisor.view(comparison_id).comparison
    assert 0.2 < row.progress < 1
    assert 0.2 < row.eta_seconds < 20
    assert supervisor.wait(comparison_id, 15)
    row = supervisor.view(comparison_id).comparison
    assert (row.progress, row.eta_seconds) == (1.0, None)


def test_a_long_history_is_read_from_the_store_where_memory_does_not_hold_it(supervisor, monkeypatch):
    monkeypatch.setattr(board, "KEPT_EVENTS", 10)
    comparison_id = supervisor.submit(comparison(methods=1, steps=60))
    assert supervisor.wait(comparison_id, 10)
    view = supervisor.view(comparison_id)
    assert steps_of(view, 0) == list(range(1, 61))
    middle = view.events[20]["seq"]
    assert supervisor.view(comparison_id, middle).events == view.events[21:]
    assert supervisor.view(comparison_id, view.events[-3]["seq"]).events == view.events[-2:]


def test_however_long_a_history_is_it_is_read_only_when_asked_for_and_keeps_nobody_waiting(supervisor, monkeypatch):
    monkeypatch.setattr(board, "KEPT_EVENTS", 10)
    whole_reads, shown, free = [], threading.Event(), threading.Event()
    read = supervisor._store.view

    def watched(comparison_id, after=0, *, only=None):
        if after == 0 and only == ():
            whole_reads.append(comparison_id)
            free.set()
            assert shown.wait(10)
        return read(comparison_id, after, only=only)

    comparison_id = supervisor.submit(comparison(methods=1, steps=200, step_seconds=0.005))
    reached(supervisor, comparison_id, 50)
    monkeypatch.setattr(supervisor._store, "view", watched)
    opening = threading.Thread(target=supervisor.view, args=(comparison_id,))
    opening.start()
    assert free.wait(10)
    seq = supervisor.view(comparison_id, 2**40).comparison.progress  # an answer while another viewer's is being read
    until(lambda: supervisor.view(comparison_id, 2**40).comparison.progress > seq, 10)
    shown.set()
    opening.join()
    assert supervisor.wait(comparison_id, 15)
    assert whole_reads == [comparison_id]


def test_a_full_disk_fails_the_run_at_work_and_the_store_stays_readable(supervisor, tmp_path):
    comparison_id = supervisor.submit(comparison(steps=400))
    reached(supervisor, comparison_id, 5)
    writer = supervisor._store._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    until(lambda: not (tmp_path / "reserve").exists(), 10)
    assert states(supervisor.view(comparison_id))
    writer.execute("PRAGMA max_page_count = 1000000")  # as the reserve does on a real disk
    assert supervisor.wait(comparison_id, 15)
    failed = [run for run in supervisor.view(comparison_id).runs if run.state is RunState.FAILED]
    assert failed
    assert all(run.error.startswith("disk full") for run in failed)


def test_after_the_end_nothing_is_started(tmp_path):
    with supervise(tmp_path, "thread") as supervisor:
        pass
    with pytest.raises(Refused, match="shutting down"):
        supervisor.submit(comparison())


def test_a_worker_that_cannot_be_started_is_the_reason_of_the_failure(tmp_path):
    class Broken:
        def start(self, job):
            raise OSError("no more processes")

        def warm(self, spares=1):
            """Nothing to make ready."""

        def offer(self, several):
            return Offer()

        close = warm

    with supervise(tmp_path, Broken()) as supervisor:
        comparison_id = supervisor.submit(comparison())
        until(lambda: all(run.state.ended for run in supervisor.view(comparison_id).runs), 5)
        assert {run.error for run in supervisor.view(comparison_id).runs} == {"OSError: no more processes"}


def test_the_machine_can_be_asked():
    assert usable_cores() >= 1
    assert oom_kills() >= 0


def test_stopping_takes_no_longer_than_it_may():
    assert Limits().stop + CLOSE_SECONDS < 10
