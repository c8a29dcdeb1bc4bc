"""The wall clock jumps by days under a server and its workers: nothing that counts goes by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from peft_core.records import RunState
from tests.reliability.support import ROOT

pytestmark = pytest.mark.reliability


def test_a_clock_that_jumps_days_forth_and_back_ends_and_misorders_nothing(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("setting a process's clock takes a C compiler and LD_PRELOAD")
    library, shift = tmp_path / "clock.so", tmp_path / "shift"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT": str(shift), "PYTHONPATH": str(ROOT)}
    (tmp_path / "home").mkdir()
    command = [sys.executable, "-m", "tests.reliability.jumps", str(tmp_path / "home"), str(shift)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["newest first"] and 0 < told["seconds"] < 120
    for found in told["found"]:
        assert found["states"] == [RunState.FINISHED] * 2 and found["errors"] == [None, None]
        assert found["steps"] == [list(range(1, 61))] * 2 and found["in order"] and found["eta"] is None
    first, second, third = (datetime.fromisoformat(found["created"]) for found in told["found"])
    assert (second - first).total_seconds() > 80_000, "the server's clock did jump forth"
    assert (third - second).total_seconds() < -160_000, "and back"
    at_start = [found["clock"][0] for found in told["found"]]
    assert at_start[1] - at_start[0] > 80_000 and at_start[2] - at_start[1] < -160_000, "and so did the workers'"
