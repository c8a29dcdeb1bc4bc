"""A model that is being downloaded: the page and the command line tell how far it is, and cancelling does not wait."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.hub_server import Fault, HubServer
from tests.training.test_hub_comparison import roberta

pytestmark = pytest.mark.reliability


def test_a_download_is_told_and_can_be_cancelled(tmp_path):
    roberta(tmp_path / "models/some/slow")
    slow = Fault("/lfs/models/some/slow/model.safetensors", delay=15.0, method="GET")
    with HubServer(tmp_path, faults=[slow]) as hub:
        done = subprocess.run(
            [sys.executable, "-m", "tests.reliability.download", str(tmp_path / "home")],
            env=hub.environment(tmp_path / "cache") | {"HF_HUB_DOWNLOAD_TIMEOUT": "60"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["said"].startswith("downloading some/slow, ") and found["said"].endswith(" MB")
    assert found["said"] in found["shown"]
    assert found["state"] == "cancelled" and found["seconds"] < 10
