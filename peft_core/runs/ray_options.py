"""Which Ray cluster trains, with what for each worker, and under which conditions it is joined at all.

Nothing here imports Ray: what is refused is refused before anything is started.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from peft_core.records import InputError

LEAST_VERSION = (2, 52)
"""The first release whose connections can be authenticated by a token."""
LEAST_PART = 0.0001
"""The finest that Ray schedules."""
MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
INSTALL = "it needs Ray; install it with `pip install -r requirements-ray.txt`"


@dataclass(frozen=True)
class RayOptions:
    """A cluster and what a worker gets of it.

    address: host:port of the head, or `auto` for the cluster that this machine is a node of; None: a cluster of this
    machine alone, started and ended with the executor. cpus, gpus, memory (bytes): of each worker, as Ray schedules
    them; gpus None: one where the specification's device allows it and the cluster has any. restarts: how often a
    worker begins again after a node or its Ray process was lost. storage: an fsspec URL for checkpoints and adapters;
    None: the comparison's folder, which then every node has to see.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float | None = None
    memory: int | None = None
    restarts: int = 3
    storage: str | None = None

    @classmethod
    def of(cls, address: str | None = None, environment: Mapping[str, str] | None = None) -> RayOptions:
        """From the variables RANKLAB_RAY_ADDRESS, _CPUS, _GPUS, _MEMORY_GIB, _RESTARTS and RANKLAB_STORAGE.

        Raises:
            InputError: a value that is no number in its range, or one that Ray does not schedule.
        """
        given = os.environ if environment is None else environment
        gib = _number(given, "RANKLAB_RAY_MEMORY_GIB", 0.0)
        cpus, gpus = _number(given, "RANKLAB_RAY_CPUS", 1.0), _number(given, "RANKLAB_RAY_GPUS", None)
        if cpus is None or cpus < LEAST_PART:
            raise InputError("RANKLAB_RAY_CPUS", cpus, f"it must be at least {LEAST_PART}")
        if gpus and (gpus < LEAST_PART or (gpus > 1 and gpus != int(gpus))):
            allowed = f"it must be 0, a part from {LEAST_PART} to 1, or a whole number"
            raise InputError("RANKLAB_RAY_GPUS", gpus, allowed)
        return cls(
            address=address or given.get("RANKLAB_RAY_ADDRESS") or None,
            cpus=cpus,
            gpus=gpus,
            memory=int(gib * 2**30) if gib else None,
            restarts=int(_number(given, "RANKLAB_RAY_RESTARTS", 3.0) or 0),
            storage=given.get("RANKLAB_STORAGE") or None,
        )

    @property
    def threads(self) -> int:
        """CPU threads of a worker."""
        return max(1, math.floor(self.cpus))

    def resources(self, device: str, gpus_there: float) -> dict[str, Any]:
        """What Ray reserves for a worker. device: of the specification, `auto`, `cpu` or `cuda...`."""
        wanted = self.gpus
        if wanted is None:
            wanted = 1.0 if device.startswith("cuda") or (device == "auto" and gpus_there >= 1) else 0.0
        found: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": wanted}
        return found | ({"memory": self.memory} if self.memory else {})


def in_words(resources: Mapping[str, float]) -> str:
    """Resources as a sentence has them: `1 CPU, 0.5 GPU, 4 GiB`. resources: as `RayOptions.resources` gives them."""
    units = {"num_cpus": (1, "CPU"), "num_gpus": (1, "GPU"), "memory": (2**30, "GiB")}
    return ", ".join(f"{count / units[name][0]:g} {units[name][1]}" for name, count in resources.items() if count)


def require_ray() -> None:
    """Raises `InputError` where Ray is not installed, or too old to authenticate."""
    version = installed()
    if version is None:
        raise InputError("executor", "ray", INSTALL)
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise InputError("executor", "ray", f"Ray {version} has no authentication; install {least} or newer")


def installed() -> str | None:
    """The version of Ray that is installed; None where there is none."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None


def secured(address: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a cluster is joined or, without an address, started: with token authentication on.

    An address on loopback is no exception: Ray takes it for the node's own address in the network, where it listens.

    Raises:
        InputError: an address of another kind, or one without a token.
    """
    passed = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    if address is None:
        return passed | {MODE: "token", TOKEN: passed.get(TOKEN) or secrets.token_hex(32)}
    if "://" in address or (address != "auto" and not _host(address)):
        raise InputError("ray_address", address, "it must be auto or host:port of the head, on a node of the cluster")
    disabled = passed.get(MODE, "").lower() == "disabled"
    if _has_token(passed) and not disabled:
        return passed | {MODE: "token"}
    allowed = f"a cluster is joined with token authentication only; set {MODE}=token and {TOKEN}"
    raise InputError("ray_address", address, allowed)


def _has_token(environment: Mapping[str, str]) -> bool:
    """As Ray looks for one: the variable, the file that is named, the file in the home folder."""
    if environment.get(TOKEN, "").strip():
        return True
    named = environment.get(TOKEN_PATH)
    file = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    try:
        return bool(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False


def _host(address: str) -> str:
    host, _, port = address.rpartition(":")
    return host.strip("[]") if port.isdigit() else ""


def _number(given: Mapping[str, str], name: str, default: float | None) -> float | None:
    text = given.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise InputError(name, text, "it must be a number from 0")
    return value
