"""200 runs in a row. `make soak` does them with the real engine on the real page; here a stand-in trains."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.reliability


def test_the_servers_memory_stays_while_run_follows_run(tmp_path):
    command = [sys.executable, "-m", "tests.reliability.many", str(tmp_path), "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-2000:]
    memory = json.loads(done.stdout.splitlines()[-1])
    assert len(memory) == 10
    assert memory[-1] < 1.05 * memory[0], [f"{value / 2**20:.1f} MiB" for value in memory]
