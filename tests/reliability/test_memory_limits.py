"""Memory that really ends: an address space that is limited, a control group whose killer comes."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from peft_core.records import RunState
from peft_core.runs import Limits
from peft_core.runs.machine import CGROUPS
from peft_core.runs.process import ProcessExecutor
from tests.reliability.support import real
from tests.runs.support import comparison, states, steps_of, supervise, until

pytestmark = pytest.mark.reliability
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of other processes are Linux's")


def limit_address_space(pid: int, more: int) -> None:
    size = psutil.Process(pid).memory_info().vms + more
    resource.prlimit(pid, resource.RLIMIT_AS, (size, size))


def warm_workers(supervisor) -> list[int]:
    """Spare workers that have imported everything: they wait for their job, and not for the processor."""
    until(lambda: supervisor.processes(), 20)
    pids = supervisor.processes()

    def used() -> list[float]:
        return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]

    def idle() -> bool:
        before = used()
        time.sleep(1.2)
        return all(now > 0.05 and now - old < 0.02 for old, now in zip(before, used(), strict=True))

    until(idle, 120)
    return pids


@linux
def test_a_run_that_asks_for_more_than_there_is_fails_alone(tmp_path):
    with supervise(tmp_path) as supervisor:
        for pid in warm_workers(supervisor):
            limit_address_space(pid, 200 * 2**20)
        made = supervisor.submit(comparison(methods=3, fault="hoard", fault_run=1))
        assert supervisor.wait(made, 30)
        view = supervisor.view(made)
    assert states(view) == [RunState.FINISHED, RunState.FAILED, RunState.FINISHED]
    assert view.runs[1].error.startswith("out of memory; use a smaller batch size, a shorter max_length")
    assert steps_of(view, 0) == steps_of(view, 2) == list(range(1, 31))


@contextmanager
def memory_group(limit: int) -> Iterator[Callable[[int], None]]:
    """A control group of the test's own with so many bytes; gives a function that puts a process into it."""
    old = CGROUPS / "memory" / f"ranklab-test-{os.getpid()}"
    new = CGROUPS / f"ranklab-test-{os.getpid()}"
    group, name = (old, "memory.limit_in_bytes") if old.parent.is_dir() else (new, "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        if not (group / name).exists():
            pytest.skip("control groups do not limit memory here")
        (group / name).write_text(str(limit))
        swap = {"memory.limit_in_bytes": "memory.memsw.limit_in_bytes", "memory.max": "memory.swap.max"}[name]
        with suppress(OSError):
            (group / swap).write_text(str(limit if "memsw" in swap else 0))
        yield lambda pid: _put(group, pid)
    finally:
        until(lambda: not (group / "cgroup.procs").read_text().strip(), 10)
        group.rmdir()


def _put(group: Path, pid: int) -> None:
    (group / "cgroup.procs").write_text(str(pid))


@linux
def test_a_worker_that_the_system_ends_for_memory_costs_the_run_at_work_only(tmp_path):
    with memory_group(300 * 2**20) as put, supervise(tmp_path) as supervisor:
        for pid in warm_workers(supervisor):
            put(pid)
        made = supervisor.submit(comparison(methods=3, fault="hoard", fault_run=1))
        assert supervisor.wait(made, 30)
        view = supervisor.view(made)
    assert states(view) == [RunState.FINISHED, RunState.FAILED, RunState.FINISHED]
    assert view.runs[1].error.startswith("out of memory; use a smaller batch size, a shorter max_length")
    assert steps_of(view, 1) == [1, 2]
    assert steps_of(view, 0) == steps_of(view, 2) == list(range(1, 31))


@linux
def test_the_real_engine_names_a_batch_that_does_not_fit_and_the_next_comparison_trains(tmp_path):
    executor = ProcessExecutor(tmp_path, threads=1, workers=1)
    trainer = "peft_core.training:train_comparison"
    with supervise(tmp_path, executor, trainer=trainer, limits=Limits(spare=3600)) as supervisor:
        (pid,) = warm_workers(supervisor)
        limit_address_space(pid, 300 * 2**20)
        big = supervisor.submit(real("full", train_rows=2000, training={"batch_size": 2000, "steps": 2}))
        assert supervisor.wait(big, 60)
        view = supervisor.view(big)
        assert states(view) == [RunState.FAILED]
        assert view.runs[0].error.startswith("out of memory; "), view.runs[0].error
        assert "smaller batch" in view.runs[0].error
        small = supervisor.submit(real("full", training={"steps": 3}))
        assert supervisor.wait(small, 90)
        assert states(supervisor.view(small)) == [RunState.FINISHED]


def test_out_of_memory_and_asserts_on_a_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU: its out-of-memory and device asserts cannot be caused here (line 11, the GPU's part)")
    from peft_core.training.turns import reason

    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2**46, device="cuda")
    assert reason(caught.value).startswith("out of memory; a smaller batch_size")
    assert torch.ones(1, device="cuda").item() == 1, "the next one gets the device"
