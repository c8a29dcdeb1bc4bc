"""A comparison that is spread over several workers: shares, and what the end of one worker costs."""

from __future__ import annotations

import json
import signal

import pytest

from peft_core.records import Offer, Plan, RunState
from peft_core.runs import Limits
from peft_core.runs.process import ProcessExecutor
from tests.runs import support
from tests.runs.ray_cluster import needs_ray
from tests.runs.stand_in import TRAINER, loss
from tests.runs.support import (
    QUICK,
    comparison,
    pid_of_worker,
    reached,
    states,
    steps_of,
    supervise,
    times_in_state,
    until,
    worker_of,
)


def pids(supervisor, comparison_id):
    runs = supervisor.view(comparison_id).runs
    return [pid_of_worker(supervisor, comparison_id, number) for number in range(len(runs))]


@pytest.fixture(params=["process", pytest.param("ray", marks=[needs_ray, pytest.mark.reliability])])
def executor(request):
    """What `supervise` is given; threads have no shares."""
    return request.getfixturevalue("on_ray") if request.param == "ray" else request.param


@pytest.fixture
def supervisor(executor, tmp_path):
    with supervise(
        tmp_path, executor, limits=Limits(**{**vars(QUICK), "beat": min(2.5 * support.PATIENCE, 4.0)})
    ) as made:
        yield made


def test_every_share_is_trained_by_a_worker_of_its_own(supervisor):
    comparison_id = supervisor.submit(comparison(methods=5, steps=40, workers=2))
    reached(supervisor, comparison_id, 3)
    one, two, *others = pids(supervisor, comparison_id)
    assert one != two and others == [one, two, one]
    assert supervisor.wait(comparison_id, 20)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * 5
    assert all(steps_of(view, number) == list(range(1, 41)) for number in range(5))
    assert all(times_in_state(view, number) == {"running": 1, "finished": 1} for number in range(5))
    shares = Plan.recorded(view.comparison.plan).shares
    assert shares == (tuple(run.run for run in view.runs[::2]), tuple(run.run for run in view.runs[1::2]))
    assert view.comparison.progress == 1.0 and view.comparison.eta_seconds is None


@pytest.mark.reliability
def test_a_killed_worker_interrupts_its_share_alone_and_resume_follows_the_same_plan(supervisor):
    comparison_id = supervisor.submit(comparison(methods=4, steps=150, workers=2))
    reached(supervisor, comparison_id, 3)
    plan = supervisor.view(comparison_id).comparison.plan
    worker_of(supervisor, comparison_id, 1).send_signal(signal.SIGKILL)
    took = until(lambda: states(supervisor.view(comparison_id))[1::2] == [RunState.INTERRUPTED] * 2)
    assert took < 3 * support.PATIENCE
    assert states(supervisor.view(comparison_id))[::2] == [RunState.RUNNING] * 2
    one = supervisor.view(comparison_id).runs[1].run
    assert supervisor.resume(one) == [one]  # beside the other share, which goes on
    assert supervisor.wait(comparison_id, 20)
    view = supervisor.view(comparison_id)
    ended = [RunState.FINISHED, RunState.FINISHED, RunState.FINISHED, RunState.INTERRUPTED]
    assert states(view) == ended
    supervisor.resume(comparison_id)
    assert supervisor.wait(comparison_id, 20)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * 4 and view.comparison.plan == plan
    for number, run in enumerate(view.runs):
        losses = [event["loss"] for event in view.events if event["run"] == run.run and event["event"] == "step"]
        assert losses == [loss(run.seed, step) for step in range(1, 151)], number


@pytest.mark.reliability
@pytest.mark.parametrize("fault", ["segv", "freeze"])
def test_a_worker_that_breaks_costs_its_active_run_and_the_rest_of_its_share_goes_on(supervisor, fault):
    faulty = comparison(methods=5, steps=40, workers=2, fault=fault, fault_run=2, fault_step=20)
    comparison_id = supervisor.submit(faulty)
    assert supervisor.wait(comparison_id, 20)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED, RunState.FINISHED, RunState.FAILED, *[RunState.FINISHED] * 2]
    assert all(steps_of(view, number) == list(range(1, 41)) for number in (0, 1, 3, 4))
    one, two, _, four, five = [(supervisor.folder(run.run) / "processes").read_text().split() for run in view.runs]
    assert len(set(one)) == 2 and one == five, "the share went on in a new worker"
    assert len(two) == 1 and two == four, "the other worker was left alone"


@pytest.mark.reliability
def test_a_worker_that_breaks_while_runs_advance_together_costs_all_of_them(supervisor):
    faulty = comparison(methods=4, steps=40, workers=2, together=True, fault="segv", fault_run=1, fault_step=20)
    comparison_id = supervisor.submit(faulty)
    assert supervisor.wait(comparison_id, 20)
    view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED, RunState.FAILED] * 2
    assert all(run.error.startswith("the worker crashed (SIGSEGV)") for run in view.runs[1::2])


def test_one_run_is_cancelled_and_all_others_go_on(supervisor):
    comparison_id = supervisor.submit(comparison(methods=4, steps=60, workers=2))
    reached(supervisor, comparison_id, 3)
    run = supervisor.view(comparison_id).runs[3].run
    assert supervisor.cancel(run) and supervisor.wait(run, 3)
    assert supervisor.wait(comparison_id, 15)
    assert states(supervisor.view(comparison_id)) == [*[RunState.FINISHED] * 3, RunState.CANCELLED]
    supervisor.resume(run)
    assert supervisor.wait(comparison_id, 15)
    assert states(supervisor.view(comparison_id)) == [RunState.FINISHED] * 4


def test_cancelling_a_comparison_stops_every_worker(supervisor):
    comparison_id = supervisor.submit(comparison(methods=4, steps=2000, workers=2))
    reached(supervisor, comparison_id, 3)
    assert supervisor.cancel(comparison_id)
    assert supervisor.wait(comparison_id, 5)
    assert states(supervisor.view(comparison_id)) == [RunState.CANCELLED] * 4


def test_closing_ends_every_worker_and_a_later_supervisor_goes_on_with_the_plan(executor, tmp_path):
    with supervise(tmp_path, executor) as supervisor:
        comparison_id = supervisor.submit(comparison(methods=4, steps=150, workers=2))
        reached(supervisor, comparison_id, 3)
        plan = supervisor.view(comparison_id).comparison.plan
    assert supervisor.processes() == []
    with supervise(tmp_path, executor) as supervisor:
        assert states(supervisor.view(comparison_id)) == [RunState.INTERRUPTED] * 4
        supervisor.resume(comparison_id)
        assert supervisor.wait(comparison_id, 15)
        view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED] * 4 and view.comparison.plan == plan
    assert all(steps_of(view, number) == list(range(1, 151)) for number in range(4))


def test_the_time_limit_is_that_of_all_workers(executor, tmp_path):
    total = min(1.5 * support.PATIENCE, 2.0)
    limits = Limits(**{**vars(QUICK), "beat": QUICK.beat * support.PATIENCE, "total": total})
    with supervise(tmp_path, executor, limits=limits) as supervisor:
        comparison_id = supervisor.submit(comparison(methods=4, steps=5000, workers=2))
        assert supervisor.wait(comparison_id, 10)
        assert {run.error for run in supervisor.view(comparison_id).runs} == {
            f"the time limit of {total:g} seconds was reached; resume goes on from here"
        }


def test_a_share_whose_worker_cannot_be_started_fails_and_the_other_goes_on(tmp_path):
    class OnlyOne(ProcessExecutor):
        def start(self, job):
            if job.share:
                raise OSError("no more processes")
            return super().start(job)

    with supervise(tmp_path, OnlyOne(tmp_path, TRAINER)) as supervisor:
        comparison_id = supervisor.submit(comparison(methods=4, steps=30, workers=2))
        until(lambda: all(run.state.ended for run in supervisor.view(comparison_id).runs), 15)
        view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED, RunState.FAILED] * 2
    assert {run.error for run in view.runs[1::2]} == {"OSError: no more processes"}


@pytest.mark.parametrize(("spec", "workers"), [("workers", 2), ("auto", 2), ("apart", 1), ("lockstep", 1)])
def test_what_a_comparison_may_use_follows_what_it_asks_for(tmp_path, spec, workers):
    executor = ProcessExecutor(tmp_path, TRAINER, threads=2)
    with supervise(tmp_path, executor) as supervisor:
        until(lambda: len(executor.processes()) == 2, 10)
        comparison_id = supervisor.submit(comparison(steps=200).model_copy(update={"plan": spec}))
        reached(supervisor, comparison_id, 1)
        run = supervisor.view(comparison_id).runs[0].run
        offer = json.loads((supervisor.folder(run) / "process").read_text().split(maxsplit=1)[1])
    seconds = 0.7 if workers == 2 else 0.0
    assert Offer(**offer) == Offer(workers=workers, cores=2, start_seconds=seconds)


def test_a_short_comparison_is_offered_one_worker(tmp_path):
    with supervise(tmp_path, ProcessExecutor(tmp_path, TRAINER, threads=2)) as supervisor:
        comparison_id = supervisor.submit(comparison(steps=30))
        assert supervisor.wait(comparison_id, 15)
        run = supervisor.view(comparison_id).runs[0].run
        assert '"workers": 1' in (supervisor.folder(run) / "process").read_text()
