"""Training in calls that a host lends an accelerator for: forked, pickled, and short."""

from __future__ import annotations

import os
import signal
import sys

import psutil
import pytest

from peft_core.records import InputError, RunState
from peft_core.runs.borrowed import BorrowedExecutor
from tests.runs import forked_spaces
from tests.runs.stand_in import TRAINER
from tests.runs.support import comparison, reached, states, steps_of, supervise, times_in_state, until
from ui import zerogpu


@pytest.fixture
def spaces(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", forked_spaces)
    forked_spaces.calls.clear()
    forked_spaces.children.clear()
    return forked_spaces


def lent(tmp_path, seconds=60):
    return supervise(tmp_path, executor=zerogpu.borrowed_executor(seconds, TRAINER))


def test_a_comparison_is_trained_in_a_forked_process(spaces, tmp_path):
    with lent(tmp_path, 33) as supervisor:
        made = supervisor.submit(comparison(methods=2, seeds=2))
        assert supervisor.wait(made, 20)
        view = supervisor.view(made)
        assert states(view) == [RunState.FINISHED] * 4
        assert all(steps_of(view, number) == list(range(1, 31)) for number in range(4))
        assert times_in_state(view, 0) == {"running": 1, "finished": 1}
        trained_in = int((supervisor.folder(view.runs[0].run) / "process").read_text().split()[0])
        assert [trained_in] == spaces.children != [os.getpid()] and spaces.calls == [33]
        assert not list(supervisor.folder(made).glob("stop-*"))


def test_one_run_and_then_all_are_stopped_through_the_fork(spaces, tmp_path):
    with lent(tmp_path) as supervisor:
        made = supervisor.submit(comparison(methods=3, steps=4000, step_seconds=0.005, together=True))
        reached(supervisor, made, 3)
        assert supervisor.cancel(f"{made}-1")
        until(lambda: states(supervisor.view(made))[1] is RunState.CANCELLED, 10)
        assert states(supervisor.view(made))[0] is RunState.RUNNING
        supervisor.cancel(made)
        assert supervisor.wait(made, 15)
        assert states(supervisor.view(made)) == [RunState.CANCELLED] * 3


def test_when_the_time_is_over_it_can_be_resumed(spaces, tmp_path):
    executor = zerogpu.borrowed_executor(1, TRAINER)
    with supervise(tmp_path, executor=executor) as supervisor:
        made = supervisor.submit(comparison(methods=1, steps=150, step_seconds=0.01))
        assert supervisor.wait(made, 15)
        view = supervisor.view(made)
        assert states(view) == [RunState.INTERRUPTED] and 0 < view.runs[0].step < 150
        assert "lent for 1 seconds" in (view.comparison.message or "")
        executor.seconds = 60
        supervisor.resume(made)
        assert supervisor.wait(made, 15)
        assert states(supervisor.view(made)) == [RunState.FINISHED]
        assert steps_of(supervisor.view(made), 0) == list(range(1, 151)) and len(spaces.calls) == 2


def test_a_call_that_is_ended_from_outside_fails_with_a_reason(spaces, tmp_path):
    with lent(tmp_path) as supervisor:
        made = supervisor.submit(comparison(methods=1, steps=4000, step_seconds=0.005))
        reached(supervisor, made, 3)
        os.kill(spaces.children[0], signal.SIGKILL)
        assert supervisor.wait(made, 15)
        run = supervisor.view(made).runs[0]
        assert run.state is RunState.FAILED and "GPU task aborted" in (run.error or "")


def test_closing_leaves_no_process(spaces, tmp_path):
    with lent(tmp_path) as supervisor:
        made = supervisor.submit(comparison(methods=1, steps=4000, step_seconds=0.005))
        reached(supervisor, made, 3)
    until(lambda: not psutil.pid_exists(spaces.children[0]), 10)


def test_a_host_that_refuses_is_quoted(tmp_path):
    def refusing(*arguments):
        raise RuntimeError("the quota is used up")
        yield

    with supervise(tmp_path, executor=BorrowedExecutor(refusing, 60, TRAINER)) as supervisor:
        made = supervisor.submit(comparison(methods=1))
        assert supervisor.wait(made, 15)
        assert "the quota is used up" in (supervisor.view(made).runs[0].error or "")


def test_zero_gpu_is_detected_and_needs_its_package(monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert not zerogpu.on_zero_gpu()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert zerogpu.on_zero_gpu()
    monkeypatch.setitem(sys.modules, "spaces", None)
    with pytest.raises(InputError, match=r"RANKLAB_EXECUTOR is 'zerogpu'; it needs the package spaces"):
        zerogpu.borrowed_executor(60)
