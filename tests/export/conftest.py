"""One small comparison, trained once by the command line, whose runs the tests export."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

METHODS = ("lora:rank=8", "capaboost_lora:rank=8", "full", "adapter_pfeiffer:bottleneck=4")


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """`home`: its store's folder. `runs`: run by method and seed."""
    home = tmp_path_factory.mktemp("export") / "home"
    methods = [part for method in METHODS for part in ("--method", method)]
    command = [
        sys.executable,
        "-m",
        "peft_core",
        "compare",
        "--model",
        "tiny-text",
        "--task",
        "acceptability",
        *methods,
    ]
    sizes = ["--steps", "4", "--train-rows", "64", "--eval-rows", "32", "--seeds", "2", "--eval-every", "2"]
    environment = os.environ | {"RANKLAB_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    listed = subprocess.run(
        [sys.executable, "-m", "peft_core", "runs", "--json"], capture_output=True, text=True, env=environment
    )
    name = json.loads(listed.stdout)[0]["id"]
    runs = {(METHODS[place % len(METHODS)], place // len(METHODS)): f"{name}-{place}" for place in range(8)}
    return SimpleNamespace(id=name, home=home, runs=runs)


@pytest.fixture
def store(comparison, tmp_path, monkeypatch):
    """A copy of it as the store of this test."""
    shutil.copytree(comparison.home, tmp_path / "store")
    monkeypatch.setenv("RANKLAB_HOME", str(tmp_path / "store"))
    return SimpleNamespace(id=comparison.id, runs=comparison.runs, home=tmp_path / "store")
