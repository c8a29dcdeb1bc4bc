"""A real cluster of small nodes for the tests, in a process of its own: `python -m tests.runs.ray_cluster NODES`.

It says its address, and on lines `lose` (a node that is not the head is killed with all its processes), `add` and
`restart` (the head is killed and started again) how many nodes it has then. It ends with its standard input.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from peft_core.runs.ray import RayExecutor
from peft_core.runs.ray_options import RayOptions
from tests.runs.stand_in import TRAINER

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (requirements-ray.txt)")
SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
HEAD = {**SMALL, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


class Nodes:
    """The cluster, as a test has it. environment: what whoever joins it needs."""

    def __init__(self, nodes: int) -> None:
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        passed = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.runs.ray_cluster", str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
            env=passed | self.environment | {"RAY_USAGE_STATS_ENABLED": "0"},
        )
        self.address = self._answer()

    def tell(self, word: str) -> None:
        """Lose or add a node, or restart the head."""
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def count(self) -> int:
        """How many there are since the last word."""
        return int(self._answer())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> str:
        for line in self._process.stdout:
            if line.startswith("> "):
                return line[2:].strip()
        raise AssertionError("the cluster did not start")


class Shared(RayExecutor):
    """An executor that outlives the supervisors it is given to: they end their workers, it stays connected."""

    def __init__(self, folder: Path, address: str, trainer: str = TRAINER, **options: object) -> None:
        super().__init__(folder, trainer, RayOptions(address=address, **options))

    def close(self) -> None:
        with self._lock:
            workers = [*self._waiting, *self._at_work.values()]
        for worker in workers:
            worker.kill()

    def processes(self) -> list[int]:
        return []

    def end(self) -> None:
        super().close()


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    for _ in range(int(sys.argv[1]) - 1):
        cluster.add_node(wait=False, **SMALL)
    cluster.wait_for_nodes()
    print(f"> {cluster.address}", flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0], allow_graceful=False)
        elif line.strip() == "restart":
            port = int(cluster.address.rpartition(":")[2])
            cluster.remove_node(cluster.head_node, allow_graceful=False)
            cluster.add_node(**HEAD, gcs_server_port=port)
        else:
            cluster.add_node(**SMALL)
        print(f"> {1 + len(cluster.worker_nodes)}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
