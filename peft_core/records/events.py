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
    flops: float = Field(description="FLOPs executed so far, forward and backward, backbone and adapter, counted")
    adapter_flops_executed: float = Field(description="the adapter's own share so far, counted")
    adapter_flops_nominal: float = Field(description="the adapter's own share so far by formula, non-zeros only")
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
    orthogonality: float | None = Field(None, description="||dW dW^T - I||_F^2 of a weight update (RM-LoRA, Table 5)")
    tolerance: float | None = Field(None, description="share of the largest singular value that counts as zero")
    spectrum: tuple[float, ...] | None = Field(
        None, description="all singular values, falling, to 6 digits; at the last and at each best evaluation"
    )


RankOf = Literal["delta", "linear_map", "bias"]


class RankRecord(Record):
    """Rank of every adapted layer.

    what: `delta` (weight update), `linear_map` (an adapter's U V, a prefix's P_V P_K), or `bias` (the update of a
    map's bias as an (out, 1) matrix: 0 or 1).
    """

    event: Literal["rank"] = "rank"
    what: RankOf = "delta"
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
    trials: int | None = Field(
        None, description="settings tried to find the learning rate it ran with; 1: none but this one; empty: not known"
    )
    begun_from: str | None = Field(
        None, description="the run whose learned values it began with, and whether its head too; empty: none"
    )
    rank_of: RankOf | None = Field(None, description="what `rank` is the rank of")
    stored_parameters: int | None = Field(None, description="values that the stored adapter holds, head left out")
    inference_parameters: int | None = Field(
        None, description="of them, those beside the backbone's weights in use: none where the update merges"
    )
    bit_level_storage_percent: float | None = Field(
        None, description="bits of the stored adapter, in percent of the backbone's in 32-bit floats"
    )
    run_flops: float | None = Field(None, description="executed in training, counted, forward and backward, all")
    run_adapter_flops_executed: float | None = Field(None, description="of them, the method's own products, dense")
    run_adapter_flops_nominal: float | None = Field(
        None, description="the method's own by formula, non-zeros only: three times its forward"
    )
    example_flops: float | None = Field(None, description="`run_flops` for each row that was trained on, each time")
    example_adapter_flops_executed: float | None = None
    example_adapter_flops_nominal: float | None = None
    flops_executed_vs_lora: float | None = Field(
        None, description="`run_adapter_flops_executed` over that of LoRA at the same rank on the same batches"
    )
    steps_left_out: int | None = Field(
        None, description="first steps that `step_ms_median` and `examples_per_second` leave out"
    )
    examples_per_second: float | None = Field(None, description="rows trained on, in training time")
    data_wait_share: float | None = Field(
        None, description="share of the training time for choosing, assembling and moving batches"
    )
    device_name: str | None = Field(None, description="what times, memory and energy are of")
    peak_device_bytes: int | None = Field(None, description="most allocated on an accelerator in the run's turns")
    peak_host_bytes: int | None = Field(
        None,
        description="largest resident memory of the process in the run's turns, what other runs keep included; where "
        "the system cannot tell turns apart (not Linux) since the process began",
    )
    energy_joules: float | None = Field(
        None, description="of the whole accelerator in the run's turns, evaluations included, where it counts"
    )
    eval_loss: float | None = Field(None, description="mean task loss on the evaluation rows at the selected step")
    train_loss: float | None = Field(None, description="mean task loss over the steps of the last interval")
    train_penalty: float | None = Field(None, description="what the method added to it, a mean over the same steps")
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
