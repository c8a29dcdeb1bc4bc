"""What is left when a process is killed: whole histories, no orphans, runs that can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from peft_core.records import InputError, RunState
from peft_core.runs import FolderInUse, Refused
from tests.runs.stand_in import loss
from tests.runs.support import comparison, reached, states, steps_of, supervise, times_in_state, until, worker_of

pytestmark = pytest.mark.reliability


@pytest.fixture
def server(tmp_path):
    """A server in another process, with a comparison at work, one that waits, and a spare worker."""
    command = [sys.executable, "-m", "tests.reliability.server", str(tmp_path), "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.said = json.loads(process.stdout.readline())
        yield process
        process.kill()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_killed_in_mid_run_is_interrupted_and_resumes(tmp_path, ending):
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison(seeds=2, steps=60))
        reached(supervisor, comparison_id, 10)
        worker_of(supervisor, comparison_id).send_signal(ending)
        took = until(lambda: states(supervisor.view(comparison_id)) == [RunState.INTERRUPTED] * 4)
        assert took < 3
        before = supervisor.view(comparison_id)
        for number, run in enumerate(before.runs):
            assert steps_of(before, number) == list(range(1, run.step + 1))
            assert run.error == f"the worker was ended from outside ({ending.name})"
        supervisor.resume(comparison_id)
        assert supervisor.wait(comparison_id, 15)
        view = supervisor.view(comparison_id)
    assert [run.error for run in view.runs] == [None] * 4
    assert states(view) == [RunState.FINISHED] * 4
    assert view.events[: len(before.events)] == before.events
    for number, run in enumerate(view.runs):
        assert steps_of(view, number) == list(range(1, 61))
        losses = [event["loss"] for event in view.events if event["run"] == run.run and event["event"] == "step"]
        assert losses == [loss(run.seed, step) for step in range(1, 61)]


def test_a_killed_server_leaves_no_worker_and_its_runs_are_interrupted_after_a_restart(server, tmp_path):
    server.kill()
    server.wait()
    until(lambda: all(gone(pid) for pid in server.said["workers"]), 3.0)
    with supervise(tmp_path, server=True) as supervisor:
        comparison_id, waiting = server.said["id"], server.said["waiting"]
        view = supervisor.view(comparison_id)
        assert states(view) == [RunState.INTERRUPTED] * 2
        assert view.comparison.state is supervisor.view(waiting).comparison.state is RunState.INTERRUPTED
        assert steps_of(view, 0) == list(range(1, view.runs[0].step + 1))
        supervisor.resume(waiting)
        assert supervisor.wait(waiting, 15)
        assert states(supervisor.view(waiting)) == [RunState.FINISHED] * 2


def test_a_supervisor_beside_a_server_that_is_killed_sees_it(server, tmp_path):
    with supervise(tmp_path, "thread") as supervisor:
        assert supervisor.view(server.said["id"]).comparison.state is RunState.RUNNING
        server.kill()
        server.wait()
        assert until(lambda: states(supervisor.view(server.said["id"])) == [RunState.INTERRUPTED] * 2) < 5


def test_a_second_server_says_so_and_a_command_beside_it_disturbs_nothing(server, tmp_path):
    with pytest.raises(FolderInUse, match=rf"Another RankLab server works on {tmp_path}"):
        supervise(tmp_path, server=True)
    comparison_id = server.said["id"]
    with supervise(tmp_path) as beside:
        assert states(beside.view(comparison_id)) == [RunState.RUNNING] * 2
        with pytest.raises((InputError, Refused), match="at work"):
            beside.resume(comparison_id)
        with pytest.raises(Refused, match="stop it before deleting"):
            beside.delete(comparison_id)
        own = beside.submit(comparison(methods=1))
        assert beside.wait(own, 15)
        beside.cancel(server.said["waiting"])
        beside.delete(server.said["waiting"])
        seen = beside.view(comparison_id).runs[0].step
        until(lambda: beside.view(comparison_id).runs[0].step > seen)
    assert server.poll() is None


def test_a_command_beside_a_server_stops_the_servers_run(server, tmp_path):
    comparison_id = server.said["id"]
    with supervise(tmp_path, "thread") as beside:
        started = time.monotonic()
        assert beside.cancel(comparison_id)
        assert set(states(beside.view(comparison_id))) <= {RunState.STOPPING, RunState.CANCELLED}
        assert time.monotonic() - started < 1
        assert beside.wait(comparison_id, 10)
        view = beside.view(comparison_id)
        assert states(view) == [RunState.CANCELLED] * 2
        assert times_in_state(view, 0) == {"running": 1, "stopping": 1, "cancelled": 1}
        assert beside.wait(server.said["waiting"], 15)  # the server goes on with the next
        assert states(beside.view(server.said["waiting"])) == [RunState.FINISHED] * 2


def test_cancel_races_the_end(tmp_path):
    with supervise(tmp_path, "thread") as supervisor:
        for steps in range(1, 21):
            comparison_id = supervisor.submit(comparison(methods=1, steps=steps, step_seconds=0.001))
            until(lambda made=comparison_id, last=steps: supervisor.view(made).runs[0].step >= last - 1, 10)
            supervisor.cancel(comparison_id)
            assert supervisor.wait(comparison_id, 5)
            view = supervisor.view(comparison_id)
            ends = {name: times for name, times in times_in_state(view, 0).items() if RunState(name).ended}
            assert ends in ({"cancelled": 1}, {"finished": 1})
            assert view.runs[0].state == next(iter(ends))


def test_no_worker_is_left_after_the_end(tmp_path):
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison(steps=500))
        reached(supervisor, comparison_id, 3)
        until(lambda: len(supervisor.processes()) == 2)
        pids = supervisor.processes()
    assert all(gone(pid) for pid in pids)
    assert not [child for child in psutil.Process(os.getpid()).children() if child.pid in pids]
