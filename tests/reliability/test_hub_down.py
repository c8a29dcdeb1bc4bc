"""The Hub is busy, slow, gone: attempts are bounded and told, what is kept or embedded trains."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Fault, HubServer
from tests.training.test_hub_comparison import roberta

pytestmark = pytest.mark.reliability
WAIT = {"Retry-After": "1"}


@contextmanager
def asking(hub: HubServer, folder: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A process that knows nothing of the Hub yet; gives a function that has it train on a model."""
    command = [sys.executable, "-m", "tests.reliability.hub_down", str(folder / "home")]
    environment = hub.environment(folder / "cache") | {"HF_HUB_DOWNLOAD_TIMEOUT": "2"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask(model: str) -> dict[str, Any]:
            process.stdin.write(model + "\n")
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))

        yield ask
        process.stdin.close()


def test_a_busy_a_slow_and_a_missing_hub(tmp_path):
    roberta(tmp_path / "models/some/kept")
    weights = "/lfs/models/some/kept/model.safetensors"
    with HubServer(tmp_path) as hub:
        hub.faults[:] = [
            Fault(weights, status=429, method="GET", headers=WAIT),
            Fault(weights, delay=3.0, method="GET"),
        ]
        with asking(hub, tmp_path) as ask:
            found = ask("some/kept")
            assert found["states"] == ["finished"], found
            busy = "the Hub is too busy to answer (status 429); attempt 2 of "
            assert any(said.startswith(busy) for said in found["shown"])

        hub.faults[:] = [Fault("some/", status=429, times=1000, headers=WAIT)]
        with asking(hub, tmp_path) as ask:
            hub.requests.clear()
            said = ask("some/hopeless")["refused"]
            assert "too busy to answer (status 429), and there is no copy in the cache" in said and "\n" not in said
            assert 0 < len(hub.requests) <= 4
            found = ask("some/kept")
            assert found["states"] == ["finished"], "what is in the cache works"
            told = "the Hub is too busy to answer (status 429): the copy of some/kept at commit "
            assert any(said.startswith(told) and said.endswith(" is used") for said in found["shown"])
            hub.requests.clear()
            assert ask("tiny-text")["states"] == ["finished"] and hub.requests == [], "what is embedded asks nobody"
