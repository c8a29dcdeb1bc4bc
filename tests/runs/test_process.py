"""What only the process executor does: it outlives any end of a worker."""

from __future__ import annotations

import itertools
import os
import signal
import time

import psutil
import pytest

from peft_core.records import RunState
from peft_core.runs import Limits
from peft_core.runs.process import ProcessExecutor, ProcessWorker, worker_environment
from tests.runs.stand_in import TRAINER
from tests.runs.support import QUICK, comparison, reached, states, steps_of, supervise, until, worker_of


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "the worker crashed (status 7)"),
        ("segv", "the worker crashed (SIGSEGV)"),
        ("abort", "the worker crashed (SIGABRT): kernel.cu:92: Assertion `t >= 0 && t < n_classes` failed."),
        ("freeze", "the worker gave no sign of life for 2.5 seconds"),
        ("hang", "the worker did nothing for 3 seconds"),
    ],
)
def test_a_crash_costs_the_active_run_only(tmp_path, fault, reason):
    limits = Limits(**{**vars(QUICK), "stall": 3.0})
    with supervise(tmp_path, limits=limits) as supervisor:
        comparison_id = supervisor.submit(comparison(fault=fault, fault_run=1))
        assert supervisor.wait(comparison_id, 20)
        view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FINISHED, RunState.FAILED]
    assert view.runs[1].error.startswith(reason)
    assert steps_of(view, 1) == [1, 2]
    assert steps_of(view, 0) == list(range(1, 31))


def test_a_worker_killed_for_memory_costs_the_active_run_only(tmp_path):
    kills = itertools.count()
    executor = ProcessExecutor(tmp_path, TRAINER, oom_count=lambda: next(kills))
    with supervise(tmp_path, executor) as supervisor:
        comparison_id = supervisor.submit(comparison(fault="kill"))
        assert supervisor.wait(comparison_id, 20)
        view = supervisor.view(comparison_id)
    assert states(view) == [RunState.FAILED, RunState.FINISHED]
    assert view.runs[0].error.startswith("out of memory; use a smaller batch size")


def test_what_a_worker_started_ends_with_it(tmp_path):
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison(steps=300, fault="child"))
        reached(supervisor, comparison_id, 5)
        children = worker_of(supervisor, comparison_id).children()
        assert [child.name() for child in children] == ["sleep"]
        worker_of(supervisor, comparison_id).kill()
        until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))


def test_the_spare_worker_is_used_and_replaced(tmp_path):
    with supervise(tmp_path) as supervisor:
        until(lambda: len(supervisor.processes()) >= 1)
        spares = supervisor.processes()
        comparison_id = supervisor.submit(comparison(steps=300))
        reached(supervisor, comparison_id, 2)
        assert worker_of(supervisor, comparison_id).pid in spares
        until(lambda: len(supervisor.processes()) == 2)


def test_a_spare_worker_that_died_is_not_used(tmp_path):
    with supervise(tmp_path) as supervisor:
        until(lambda: len(supervisor.processes()) >= 1)
        spares = supervisor.processes()
        for spare in spares:
            os.kill(spare, signal.SIGKILL)
        until(lambda: not set(spares) & set(supervisor.processes()))
        comparison_id = supervisor.submit(comparison())
        assert supervisor.wait(comparison_id, 15)
        assert states(supervisor.view(comparison_id)) == [RunState.FINISHED] * 2


def test_a_trainer_that_cannot_be_imported_is_the_reason_of_the_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.runs.job.check", lambda spec, trainer: None)
    with supervise(tmp_path, trainer="tests.runs.not_there:train") as supervisor:
        time.sleep(0.3)
        comparison_id = supervisor.submit(comparison())
        assert supervisor.wait(comparison_id, 10)
        error = supervisor.view(comparison_id).runs[0].error
    assert error.startswith(
        "the worker crashed (status 1): ModuleNotFoundError: No module named 'tests.runs.not_there'"
    )


def test_a_worker_gets_a_short_list_of_variables_and_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hidden")
    monkeypatch.setenv("RANKLAB_API_KEY", "hidden")
    monkeypatch.setenv("SOMETHING_ELSE", "hidden")
    monkeypatch.setenv("RANKLAB_DATA", "shown")
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison(methods=1, steps=2, show_environment=True))
        assert supervisor.wait(comparison_id, 15)
        seen = supervisor.view(comparison_id).comparison.environment
    assert seen["RANKLAB_DATA"] == "shown"
    assert "hidden" not in seen.values()
    assert int(seen["OMP_NUM_THREADS"]) >= 1


def test_the_number_of_threads_is_set_before_anything_is_imported():
    passed = worker_environment({"OMP_NUM_THREADS": "64", "PATH": "/bin"}, threads=3)
    assert (passed["OMP_NUM_THREADS"], passed["MKL_NUM_THREADS"], passed["PATH"]) == ("3", "3", "/bin")


def test_a_worker_gets_a_proxy_but_no_password_of_one():
    given = {"https_proxy": "http://127.0.0.1:3128", "HTTP_PROXY": "http://me:secret@127.0.0.1:3128", "NO_PROXY": "*"}
    passed = worker_environment(given, threads=1)
    assert passed["https_proxy"] == given["https_proxy"] and passed["NO_PROXY"] == "*" and "HTTP_PROXY" not in passed


def test_resume_waits_for_a_worker_that_is_slow_to_go(tmp_path, monkeypatch):
    end_it = ProcessWorker.kill

    def slowly(worker: ProcessWorker) -> None:
        time.sleep(0.7)
        end_it(worker)

    monkeypatch.setattr(ProcessWorker, "kill", slowly)
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison())
        reached(supervisor, comparison_id, 5)
        worker_of(supervisor, comparison_id).kill()
        until(lambda: states(supervisor.view(comparison_id)) == [RunState.INTERRUPTED] * 2)
        assert len(supervisor.resume(comparison_id)) == 2
        assert supervisor.wait(comparison_id, 20)
        assert states(supervisor.view(comparison_id)) == [RunState.FINISHED] * 2
