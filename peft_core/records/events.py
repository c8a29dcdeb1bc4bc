"""What happened: states, the records a run reports, and what the store shows of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from peft_core.records.specs import ComparisonSpec, MethodSpec


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        return self in (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED, RunState.INTERRUPTED)


class Record(BaseModel):
    """Base of everything a run reports. Figures that are not finite are None, so JSON stays strict."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run: str
    step: int

    @field_validator("*", mode="after")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value


class StepRecord(Record):
    """One optimizer step. seconds: training time of this run so far, evaluations left out."""

    event: Literal["step"] = "step"
    loss: float | None
    penalty: float | None = None
    learning_rate: float
    grad_norm: float | None
    seconds: float
    flops: float = Field(description="FLOPs executed so far, forward and backward, backbone and adapter, estimated")
    adapter_flops_executed: float = Field(description="the adapter's own share so far, dense")
    adapter_flops_nominal: float = Field(description="the adapter's own share so far, non-zeros only")
    active_parameters: int = Field(description="trainable adapter parameters at this step, head left out")


class EvalRecord(Record):
    """An evaluation on all evaluation rows; scores by metric name.

    validation: the first metric on rows apart from them, where a run's best evaluation is chosen on such rows.
    """

    event: Literal["eval"] = "eval"
    scores: dict[str, float | None]
    loss: float | None
    validation: float | None = None
    seconds: float

    @field_validator("scores")
    @classmethod
    def _finite_scores(cls, scores: dict[str, float | None]) -> dict[str, float | None]:
        return {name: value if value is not None and math.isfinite(value) else None for name, value in scores.items()}


class LayerRank(BaseModel):
    """Rank of one site's weight update."""

    model_config = ConfigDict(frozen=True)
    site: str
    layer: int
    role: str
    numerical: int
    effective: float
    stable: float
    norm: float
    bound: int


class RankRecord(Record):
    """Rank of every adapted layer.

    what: `delta` (weight update) or `linear_map` (an adapter's U V, a prefix's P_V P_K).
    """

    event: Literal["rank"] = "rank"
    what: Literal["delta", "linear_map"] = "delta"
    layers: tuple[LayerRank, ...]


class RunResult(BaseModel):
    """What a finished run leaves; the keys of results.json (CLI.md)."""

    model_config = ConfigDict(frozen=True)
    score: dict[str, float | None]
    baseline_score: float | None
    split: str
    selection: str
    selected_step: int
    trainable: int
    trainable_percent: float
    head_parameters: int
    stored_bytes: int
    head_bytes: int
    rank: dict[str, float | None] | None
    adapter_flops_executed: int
    adapter_flops_nominal: int
    flops_vs_lora: float | None
    seconds: float
    step_ms_median: float | None
    peak_memory_bytes: int | None
    learning_rate: float
    steps: int
    resampled: tuple[float | None, ...] | None = Field(
        None, description="the score on resamples of the evaluation rows, for paired bootstraps; not in results.json"
    )


class StateRecord(Record):
    """A change of a run's state."""

    event: Literal["state"] = "state"
    state: RunState
    error: str | None = None
    result: RunResult | None = None


Event = StepRecord | EvalRecord | RankRecord | StateRecord
Emit = Callable[[Event], None]


class RunRow(BaseModel):
    """A run as the store knows it."""

    model_config = ConfigDict(frozen=True)
    run: str
    label: str
    method: MethodSpec
    config: dict[str, Any] = Field(default_factory=dict, description="every option as it really ran")
    seed: int
    state: RunState
    error: str | None = None
    step: int = 0
    total_steps: int | None = None
    result: RunResult | None = None


class ComparisonRow(BaseModel):
    """A comparison as the store knows it. `state` sums up its runs."""

    model_config = ConfigDict(frozen=True)
    id: str
    created: str = Field(description="wall clock, ISO 8601, UTC; for people only, order is by `number`")
    number: int
    spec: ComparisonSpec
    state: RunState
    plan: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    baseline_score: float | None = None
    metric: str | None = None
    queue_place: int | None = None
    progress: float = 0.0
    eta_seconds: float | None = None
    message: str | None = None
    origin: Literal["local", "shipped"] = "local"


class View(BaseModel):
    """What a viewer gets: the rows, and the events after the last one it has seen, in order of `seq`.

    events: strict JSON objects, each a record of this module plus its `seq`.
    """

    model_config = ConfigDict(frozen=True)
    seq: int
    comparison: ComparisonRow
    runs: tuple[RunRow, ...]
    events: list[dict[str, Any]]
