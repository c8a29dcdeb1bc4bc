"""What every executor must do, seen through a supervisor."""

from __future__ import annotations

import json
import statistics
import time

import pytest

from peft_core.records import InputError, RunState
from peft_core.runs import Limits, Refused
from tests.runs import support
from tests.runs.ray_cluster import needs_ray
from tests.runs.stand_in import loss
from tests.runs.support import QUICK, comparison, reached, states, steps_of, supervise, times_in_state, until


@pytest.fixture(params=["thread", "process", pytest.param("ray", marks=[needs_ray, pytest.mark.reliability])])
def executor(request):
    """What `supervise` is given."""
    return request.getfixturevalue("on_ray") if request.param == "ray" else request.param


@pytest.fixture
def supervisor(executor, tmp_path):
    with supervise(tmp_path, executor) as made:
        yield made


def test_a_comparison_runs_to_its_end_and_everything_is_known(supervisor):
    spec = comparison(seeds=2)
    comparison_id = supervisor.submit(spec)
    assert supervisor.wait(comparison_id, 15)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * 4
    assert all(steps_of(view, number) == list(range(1, 31)) for number in range(4))
    assert times_in_state(view, 0) == {"running": 1, "finished": 1}
    row = view.comparison
    assert (row.spec, row.metric, row.baseline_score, row.progress) == (spec, "accuracy", 0.5, 1.0)
    assert row.environment == {"heat": None}
    assert all(run.config == {"rank": 4} and run.total_steps == 30 and run.result is not None for run in view.runs)
    assert [event["seq"] for event in view.events] == sorted({event["seq"] for event in view.events})
    json.dumps(view.events, allow_nan=False)


def test_events_reach_a_waiting_viewer_at_once(supervisor):
    comparison_id = supervisor.submit(comparison(methods=1, steps=40, step_seconds=0.02))
    delays, seen, changes = [], 0, 0
    while not delays or not states(supervisor.view(comparison_id))[0].ended:
        changes = supervisor.wait_for_change(changes, 5)
        view = supervisor.view(comparison_id, seen)
        now, seen = time.monotonic(), view.seq
        delays += [now - event["seconds"] for event in view.events if event["event"] == "step"]
    assert len(delays) == 40
    assert statistics.median(delays) < 0.15 * support.PATIENCE


def test_a_look_with_nothing_new_is_cheap_and_reads_no_file(supervisor, monkeypatch):
    comparison_id = supervisor.submit(comparison())
    assert supervisor.wait(comparison_id, 15)
    seq = supervisor.view(comparison_id).seq
    monkeypatch.setattr("peft_core.runs.schema.open_connection", None)
    started = time.perf_counter()
    for _ in range(100):
        assert not supervisor.view(comparison_id, seq).events
    assert (time.perf_counter() - started) / 100 < 0.001


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "ZeroDivisionError: "),
        ("memory", "out of memory; use a smaller batch"),
        ("disk", "disk full; delete runs"),
    ],
)
def test_a_fault_costs_the_active_run_only(supervisor, fault, reason):
    comparison_id = supervisor.submit(comparison(methods=3, fault=fault, fault_run=1))
    assert supervisor.wait(comparison_id, 20)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED, RunState.FAILED, RunState.FINISHED]
    assert view.runs[1].error.startswith(reason)
    assert steps_of(view, 1) == [1, 2]
    assert steps_of(view, 0) == steps_of(view, 2) == list(range(1, 31))


def test_training_that_cannot_begin_fails_all_runs_with_the_reason(supervisor):
    comparison_id = supervisor.submit(comparison(fault="load"))
    assert supervisor.wait(comparison_id, 15)
    assert {run.error for run in supervisor.view(comparison_id).runs} == {"OSError: the weights cannot be read"}


def test_one_run_is_cancelled_and_the_others_go_on(supervisor):
    comparison_id = supervisor.submit(comparison(steps=60))
    reached(supervisor, comparison_id, 3)
    run = supervisor.view(comparison_id).runs[0].run
    assert supervisor.cancel(run)
    assert supervisor.view(comparison_id).runs[0].state in (RunState.STOPPING, RunState.CANCELLED)
    assert supervisor.wait(run, 3)
    assert supervisor.wait(comparison_id, 15)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.CANCELLED, RunState.FINISHED]
    assert times_in_state(view, 0) == {"running": 1, "stopping": 1, "cancelled": 1}
    assert not supervisor.cancel(run)


def test_cancel_while_loading(supervisor):
    comparison_id = supervisor.submit(comparison(load_seconds=1.0))
    until(lambda: supervisor.view(comparison_id).comparison.state is RunState.RUNNING)
    assert supervisor.cancel(comparison_id)
    assert states(supervisor.view(comparison_id)) == [RunState.CANCELLED] * 2
    assert supervisor.wait(comparison_id, 5)
    assert times_in_state(supervisor.view(comparison_id), 0) == {"cancelled": 1}


def test_a_run_that_does_not_stop_is_ended(supervisor):
    comparison_id = supervisor.submit(comparison(fault="deaf", fault_run=0))
    until(lambda: supervisor.view(comparison_id).runs[1].step == 2, 10)
    supervisor.cancel(supervisor.view(comparison_id).runs[0].run)
    assert supervisor.wait(comparison_id, 15)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.CANCELLED, RunState.FINISHED]
    assert steps_of(view, 1) == list(range(1, 31))


def test_a_cancelled_comparison_resumes_where_it_was(supervisor):
    comparison_id = supervisor.submit(comparison(steps=60))
    reached(supervisor, comparison_id, 5)
    supervisor.cancel(comparison_id)
    assert supervisor.wait(comparison_id, 5)
    before = supervisor.view(comparison_id)
    assert states(before) == [RunState.CANCELLED] * 2
    assert len(supervisor.resume(comparison_id)) == 2
    assert supervisor.wait(comparison_id, 15)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * 2
    assert view.events[: len(before.events)] == before.events
    assert [
        event["loss"] for event in view.events if event["event"] == "step" and event["run"] == view.runs[0].run
    ] == [loss(0, step) for step in range(1, 61)]
    with pytest.raises(InputError, match="it has finished, so there is nothing to resume"):
        supervisor.resume(comparison_id)


def test_a_failed_run_is_resumed_beside_those_that_train(supervisor):
    comparison_id = supervisor.submit(comparison(steps=100, fault="raise", fault_run=0, fault_step=5))
    until(lambda: supervisor.view(comparison_id).runs[0].state is RunState.FAILED, 10)
    with pytest.raises(InputError, match="at work already"):
        supervisor.resume(supervisor.view(comparison_id).runs[1].run)
    supervisor.resume(supervisor.view(comparison_id).runs[0].run)
    assert supervisor.view(comparison_id).runs[0].state is not RunState.FAILED
    assert supervisor.wait(comparison_id, 15)
    assert states(supervisor.view(comparison_id)) == [RunState.FAILED, RunState.FINISHED]  # the fault is still there


def test_a_live_comparison_cannot_be_deleted(supervisor):
    comparison_id = supervisor.submit(comparison(steps=60))
    reached(supervisor, comparison_id, 2)
    with pytest.raises(Refused, match="stop it before deleting"):
        supervisor.delete(comparison_id)
    assert supervisor.wait(comparison_id, 15)
    folder = supervisor.folder(comparison_id)
    assert folder.is_dir()
    supervisor.delete(comparison_id)
    assert not folder.exists()
    assert supervisor.comparisons() == []
    with pytest.raises(InputError, match="no comparison or run with this id"):
        supervisor.view(comparison_id)


def test_the_time_limit_fails_what_is_unfinished_and_resume_goes_on(executor, tmp_path):
    total = min(0.8 * support.PATIENCE, 2.0)
    limits = Limits(**{**vars(QUICK), "beat": 2.5 * support.PATIENCE, "total": total})
    with supervise(tmp_path, executor, limits=limits) as supervisor:
        comparison_id = supervisor.submit(comparison(steps=2000, step_seconds=0.02))
        assert supervisor.wait(comparison_id, 5)
        view = supervisor.view(comparison_id)
        assert {run.error for run in view.runs} == {
            f"the time limit of {total:g} seconds was reached; resume goes on from here"
        }
    with supervise(tmp_path, executor) as supervisor:
        supervisor.resume(comparison_id)
        until(lambda: supervisor.view(comparison_id).runs[0].step > view.runs[0].step, 10)


def test_closing_interrupts_what_is_unfinished(executor, tmp_path):
    with supervise(tmp_path, executor) as supervisor:
        first, second = supervisor.submit(comparison(steps=500)), supervisor.submit(comparison())
        reached(supervisor, first, 3)
        started = time.monotonic()
    assert time.monotonic() - started < 5 * support.PATIENCE
    assert supervisor.processes() == []
    with supervise(tmp_path, executor) as supervisor:
        assert states(supervisor.view(first)) == states(supervisor.view(second)) == [RunState.INTERRUPTED] * 2
        assert supervisor.view(first).comparison.state is RunState.INTERRUPTED
        supervisor.resume(first)
        before = supervisor.view(first).runs[0].step
        until(lambda: supervisor.view(first).runs[0].step > before, 10)
