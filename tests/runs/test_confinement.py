"""What a worker for strangers may take is set on the process by the system, and holds there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from peft_core.records import InputError, RunState
from peft_core.runs.confinement import Confinement, ports_for_loading
from tests.runs.support import comparison, reached, states, supervise, worker_of

HAS_PORTS = """
from peft_core.runs.confinement import allow_only
print(allow_only([443]))
"""
CONNECT = """
import os, socket, sys
from peft_core.runs.confinement import Confinement
Confinement(network="loading").apply()
for port in map(int, sys.argv[1:]):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        print("connected")
    except PermissionError:
        print("refused")
try:
    socket.create_server(("127.0.0.1", 0))
    print("listens")
except PermissionError:
    print("refused")
"""


def test_the_environment_says_it_and_a_wrong_value_is_named() -> None:
    said = Confinement(nice=10, memory_gb=4, cpu_minutes=60, network="loading")
    assert Confinement.from_environment(said.to_environment()) == said
    assert Confinement.from_environment({}) == Confinement()
    with pytest.raises(InputError, match="RANKLAB_WORKER_nice is '20'; it must be"):
        Confinement.from_environment({"RANKLAB_WORKER_NICE": "20"})


def test_loading_needs_the_ports_of_the_hub_and_of_proxies() -> None:
    assert ports_for_loading({}) == {443, 53}
    found = ports_for_loading({"HF_ENDPOINT": "http://mirror:8080/hf", "https_proxy": "proxy.local:3128"})
    assert found == {443, 53, 8080, 3128}
    assert ports_for_loading({"HF_ENDPOINT": "http://mirror"}) == {443, 53, 80}
    assert ports_for_loading({"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://mirror:8080"}) == set()


def test_a_confined_process_reaches_the_ports_of_loading_alone() -> None:
    if "True" not in run(HAS_PORTS).stdout:
        pytest.skip("this kernel has no Landlock that knows ports")
    with socket.create_server(("127.0.0.1", 0)) as hub, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(server.getsockname()[1]) for server in (hub, other)]
        told = run(CONNECT, *ports, HF_ENDPOINT=f"http://127.0.0.1:{ports[0]}", HF_HUB_OFFLINE="").stdout.split()
    assert told == ["connected", "refused", "refused"]


def test_a_worker_has_what_the_server_says(tmp_path, monkeypatch) -> None:
    for name, value in Confinement(nice=7, memory_gb=3, cpu_minutes=2).to_environment().items():
        monkeypatch.setenv(name, value)
    with supervise(tmp_path) as supervisor:
        comparison_id = supervisor.submit(comparison(steps=300))
        reached(supervisor, comparison_id, 2)
        worker = worker_of(supervisor, comparison_id)
        assert worker.nice() == psutil.Process().nice() + 7 or worker.nice() == 19
        assert worker.rlimit(psutil.RLIMIT_DATA) == (3 * 2**30, 3 * 2**30)
        assert worker.rlimit(psutil.RLIMIT_CPU) == (120, 130)


def test_memory_and_time_that_are_used_up_cost_the_active_run_only(tmp_path, monkeypatch) -> None:
    for name, value in Confinement(memory_gb=1, cpu_minutes=0.05).to_environment().items():
        monkeypatch.setenv(name, value)
    with supervise(tmp_path) as supervisor:
        hoards = supervisor.submit(comparison(fault="hoard"))
        assert supervisor.wait(hoards, 20)
        spins = supervisor.submit(comparison(fault="spin"))
        assert supervisor.wait(spins, 30)
        views = [supervisor.view(hoards), supervisor.view(spins)]
    assert [states(view) for view in views] == [[RunState.FAILED, RunState.FINISHED]] * 2
    assert "out of memory" in views[0].runs[0].error
    assert views[1].runs[0].error.startswith("the worker used all the processor time")


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
