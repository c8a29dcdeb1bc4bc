"""Workers on the nodes of a cluster are confined as their page says."""

from __future__ import annotations

import os

import psutil

from peft_core.runs.ray_host import MARK, Host, described, worker_settings
from tests.runs.ray_trainer import TRAINER
from tests.runs.support import comparison
from tests.runs.test_ray_parts import job, taken


def test_a_worker_on_a_node_has_the_bounds_of_where_its_comparison_is(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("RANKLAB_")]:
        monkeypatch.delenv(name)
    for name, value in {"RANKLAB_WORKER_NICE": "7", "RANKLAB_PUBLIC": "1", "RANKLAB_HOME": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    settings = worker_settings()
    assert settings == {"RANKLAB_WORKER_NICE": "7", "RANKLAB_PUBLIC": "1"}
    monkeypatch.setattr("peft_core.runs.ray_host.os.environ", {**os.environ, "RANKLAB_WORKER_MEMORY_GB": "1"})
    (tmp_path / MARK).touch()
    host, slow = Host(), job(tmp_path).model_copy(update={"spec": comparison(methods=1, steps=40, step_seconds=0.05)})
    assert host.begin(described(slow), TRAINER, 1, None, settings)["refused"] is None
    taken(host, until_step=1)
    process = psutil.Process(host._at_work._worker.process.pid)
    found = {name: value for name, value in process.environ().items() if name.startswith("RANKLAB_")}
    assert process.nice() >= 7
    host.close()
    assert found == settings | {"RANKLAB_HOME": "/nowhere"}
