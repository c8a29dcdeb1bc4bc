"""What a process that works for strangers may take: its priority, memory, processor time and network.

Everything is set by the process on itself before it imports anything large or starts a thread, so that all that it
starts inherits it. What a system does not offer is left out and named in the log: limits need a POSIX system, ports a
Linux kernel of 6.7 or later that was built with Landlock.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field

from peft_core.records import Frozen, checked

log = logging.getLogger(__name__)
PREFIX = "RANKLAB_WORKER_"
GIB = 2**30
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
HTTP, HTTPS, NAMES = 80, 443, 53
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls of Landlock; their numbers are the same on every architecture that `MACHINES` names."""
MACHINES = ("x86_64", "aarch64", "riscv64")
BIND_TCP, CONNECT_TCP, NET_PORT = 1 << 0, 1 << 1, 2
FIRST_WITH_PORTS = 4
"""The first version of Landlock that knows ports."""
NO_NEW_PRIVILEGES = 38
GRACE = 10
"""Seconds of processor time between the signal that says it is used up and the one that cannot be ignored."""
WORDS = ("on", "yes", "true", "1")


class Confinement(Frozen):
    """What a worker may take; by default as much as the system gives it.

    memory_gb: of private data, RLIMIT_DATA. cpu_minutes: of all its threads together, RLIMIT_CPU. network: `loading`
    leaves TCP to the ports of the Hub, of a proxy and of name servers alone, and nothing can listen.
    """

    nice: int = Field(0, ge=0, le=19, description="added to the priority's number")
    memory_gb: float | None = Field(None, gt=0, le=2**20, description="gigabytes of memory, or none")
    cpu_minutes: float | None = Field(None, gt=0, le=2**20, description="minutes of processor time, or none")
    network: Literal["any", "loading"] = Field("any", description="any | loading")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """By RANKLAB_WORKER_<FIELD>.

        Raises:
            InputError: a value that is none; the sentence names the variable.
        """
        given = {name: environment.get(PREFIX + name.upper(), "").strip() for name in cls.model_fields}
        return checked(cls, {name: text for name, text in given.items() if text}, prefix=PREFIX)

    def to_environment(self) -> dict[str, str]:
        """What `from_environment` reads."""
        values = self.model_dump(exclude_none=True)
        return {PREFIX + name.upper(): str(value) for name, value in values.items()}

    def apply(self, environment: Mapping[str, str] = os.environ) -> None:
        """Set it on this process, for good: a limit is never raised again."""
        if self.nice:
            os.nice(self.nice)
        if self.memory_gb is not None:
            _limit("RLIMIT_DATA", int(self.memory_gb * GIB))
        if self.cpu_minutes is not None:
            _limit("RLIMIT_CPU", max(1, int(self.cpu_minutes * 60)), GRACE)
        if self.network == "loading" and not allow_only(ports_for_loading(environment)):
            log.warning("this system cannot keep a worker to some ports; it may use the network as it likes")


def ports_for_loading(environment: Mapping[str, str]) -> set[int]:
    """TCP ports that loading from the Hub needs; none where the Hub is switched off."""
    if environment.get("HF_HUB_OFFLINE", "").strip().lower() in WORDS:
        return set()
    named = [environment.get("HF_ENDPOINT", "")]
    named += [value for name, value in environment.items() if name.upper() in PROXIES]
    found = {HTTPS, NAMES}
    for address in filter(None, (text.strip() for text in named)):
        parts = urlsplit(address if "://" in address else f"http://{address}")
        found.add(parts.port or (HTTPS if parts.scheme == "https" else HTTP))
    return found


def allow_only(ports: Iterable[int]) -> bool:
    """From now on this thread, and all that it starts, connects to these TCP ports alone, and listens nowhere.

    Returns: whether the system can do that.
    """
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return False
    system = ctypes.CDLL(None, use_errno=True)
    if system.syscall(CREATE_RULESET, None, 0, 1) < FIRST_WITH_PORTS:
        return False
    rules = struct.pack("=QQ", 0, BIND_TCP | CONNECT_TCP)
    held = system.syscall(CREATE_RULESET, rules, len(rules), 0)
    if held < 0:
        return False
    try:
        for port in sorted(set(ports)):
            rule = struct.pack("=QQ", CONNECT_TCP, port)
            if system.syscall(ADD_RULE, held, NET_PORT, rule, 0) != 0:
                return False
        unprivileged = system.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        return unprivileged and system.syscall(RESTRICT_SELF, held, 0) == 0
    finally:
        os.close(held)


def _limit(name: str, most: int, grace: int = 0) -> None:
    """Lower a limit of the system to `most`, and what it can be raised to by the process, where they are not lower."""
    try:
        import resource
    except ImportError:
        log.warning("this system has no %s", name)
        return
    kind = getattr(resource, name)
    _, hard = resource.getrlimit(kind)
    highest = most + grace if hard == resource.RLIM_INFINITY else min(most + grace, hard)
    resource.setrlimit(kind, (min(most, highest), highest))
