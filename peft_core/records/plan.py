"""How a comparison is executed: chosen once, recorded, reused when it is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from peft_core.records.inputs import Frozen

FEW_STEPS = 200
"""Steps of all runs together below which nothing is measured and no second worker is started."""


class Offer(Frozen):
    """What a comparison may use of the machine, as whoever starts its workers knows it."""

    workers: int = Field(1, ge=1, description="workers that may be at work at once")
    cores: int = Field(1, ge=1, description="cores that may be used at once")
    start_seconds: float = Field(0.0, ge=0, description="what it takes until another worker trains")
    own_threads: bool = Field(True, description="whether a worker's number of threads is its own to choose")
    own_cores: bool = Field(False, description="whether each worker has cores of its own, as on a cluster")


class Plan(Frozen):
    """A comparison's plan. Within one, the same specification gives the same curves bit for bit."""

    execution: Literal["apart", "lockstep"] = Field("apart", description="lockstep: runs are folded into one batch")
    workers: int = Field(1, ge=1, description="processes that train at once, one copy of the backbone in each")
    threads: int = Field(1, ge=1, description="CPU threads of each worker")
    shares: tuple[tuple[str, ...], ...] = Field((), description="the runs of each worker; empty: all in one")
    groups: tuple[tuple[str, ...], ...] = Field((), description="runs that advance together; the others go alone")
    chosen: Literal["measured", "given", "rule"] = "rule"
    why: str = ""
    measured: dict[str, float] = Field(default_factory=dict, description="steps of all runs a second, by candidate")
    assumed: dict[str, float] = Field(default_factory=dict, description="what the figures of several workers rest on")
    measuring_seconds: float | None = None
    memory_bytes: dict[str, int | None] = Field(default_factory=dict)

    @classmethod
    def recorded(cls, facts: Mapping[str, Any]) -> Plan | None:
        """The plan that a store holds; None where none was chosen yet. What it does not know of is left out."""
        known = {name: value for name, value in facts.items() if name in cls.model_fields}
        return cls.model_validate(known) if "execution" in known and "threads" in known else None

    def share_of(self, run: str) -> int:
        """Number of the worker that a run belongs to."""
        return next((number for number, share in enumerate(self.shares) if run in share), 0)

    def groups_with(self, runs: Sequence[str]) -> list[tuple[str, ...]]:
        """The groups that hold any of these runs."""
        return [group for group in self.groups if any(run in group for run in runs)]
