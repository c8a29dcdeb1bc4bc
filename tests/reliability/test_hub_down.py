"""The Hub is busy, slow, gone: attempts are bounded and told, what is kept or embedded trains."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.hub_server import Fault, HubServer
from tests.training.test_hub_comparison import roberta

pytestmark = pytest.mark.reliability


def test_a_busy_a_slow_and_a_missing_hub(tmp_path):
    roberta(tmp_path / "models/some/kept")
    roberta(tmp_path / "models/some/hopeless")
    weights = "/lfs/models/some/kept/model.safetensors"
    with HubServer(tmp_path) as hub:
        command = [sys.executable, "-m", "tests.reliability.hub_down", str(tmp_path / "home")]
        environment = hub.environment(tmp_path / "cache") | {"HF_HUB_DOWNLOAD_TIMEOUT": "2"}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:

            def ask(model: str) -> dict:
                process.stdin.write(model + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            hub.faults[:] = [
                Fault(weights, status=429, method="GET", headers={"Retry-After": "1"}),
                Fault(weights, delay=3.0, method="GET"),
            ]
            found = ask("some/kept")
            assert found["states"] == ["finished"], found
            assert any(
                said.startswith("the Hub is too busy to answer (status 429); attempt 2 of ") for said in found["shown"]
            )

            hub.faults[:] = [Fault("some/hopeless", status=429, times=1000, headers={"Retry-After": "1"})]
            hub.requests.clear()
            said = ask("some/hopeless")["refused"]
            assert "too busy to answer (status 429), and there is no copy in the cache" in said and "\n" not in said
            assert len(hub.requests) <= 4

            hub.faults[:] = [Fault("some/kept", status=503, times=1000)]
            found = ask("some/kept")
            assert found["states"] == ["finished"], "what is in the cache works"
            assert any(said.endswith(" is used") and "the copy of some/kept" in said for said in found["shown"])
            hub.requests.clear()
            found = ask("tiny-text")
            assert found["states"] == ["finished"] and hub.requests == [], "what is embedded asks nobody"
            process.stdin.close()
