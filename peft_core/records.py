"""The plain data that every room shares: specifications, events, states, and what a backbone offers.

Only pydantic and the standard library: importing this module loads no torch. Everything is frozen; what comes from
outside is checked when it is made, and a bad value becomes an `InputError` of one sentence (`checked`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

if TYPE_CHECKING:
    import torch

T = TypeVar("T", bound=BaseModel)
MAX_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class InputError(ValueError):
    """A value from outside that cannot be used. Its text is one sentence: the field, the value, what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value) if isinstance(value, str) else str(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} is {shown}; {allowed}.")


class RunFailure(RuntimeError):
    """A run that cannot go on; its text is the sentence shown where its curve would be."""


class Frozen(BaseModel):
    """Base of all specifications: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def checked(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build `kind` from values; raise `InputError` naming the first field that does not fit."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _as_input_error(kind, error, prefix) from None


def _as_input_error(kind: type[BaseModel], error: ValidationError, prefix: str) -> InputError:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return cause
    location = [str(part) for part in first["loc"]]
    field = prefix + ".".join(location) if location else prefix.rstrip(".") or kind.__name__
    if first["type"] == "extra_forbidden":
        return InputError(field, first["input"], f"there is no such option; there are {', '.join(kind.model_fields)}")
    return InputError(field, first["input"], _allowed(kind, location, first["msg"]))


def _allowed(kind: type[BaseModel], location: Sequence[str], message: str) -> str:
    """What a field takes, from its bounds where it has them, else from pydantic's message."""
    described = describe_fields(kind)
    field = next((entry for entry in described if location and entry["name"] == location[0]), None)
    if field and field["choices"]:
        return "it must be one of " + ", ".join(str(choice) for choice in field["choices"])
    if field and (field["min"] is not None or field["max"] is not None) and field["type"] in ("int", "float"):
        noun = "a whole number" if field["type"] == "int" else "a number"
        low, high = field["min"], field["max"]
        above = " above" if field["exclusive_min"] else " from"
        below = " to below" if field["exclusive_max"] else " to"
        if low is not None and high is not None:
            return f"it must be {noun}{above} {low}{below} {high}"
        if low is not None:
            return f"it must be {noun}, {'above' if field['exclusive_min'] else 'at least'} {low}"
        return f"it must be {noun}, {'below' if field['exclusive_max'] else 'at most'} {high}"
    text = message.removeprefix("Value error, ")
    return (text[:1].lower() + text[1:]).rstrip(".")


def describe_fields(kind: type[BaseModel]) -> list[dict[str, Any]]:
    """One entry a field: name, type, default, min, max, choices, help. Forms and command-line help are made from it."""
    schema = kind.model_json_schema()
    definitions = schema.get("$defs", {})
    described = []
    for name, entry in schema.get("properties", {}).items():
        options = [_resolve(option, definitions) for option in entry.get("anyOf", [entry])]
        nullable = any(option.get("type") == "null" for option in options)
        main = next((option for option in options if option.get("type") != "null"), {})
        info = kind.model_fields[name]
        low, high = main.get("minimum", main.get("exclusiveMinimum")), main.get("maximum", main.get("exclusiveMaximum"))
        described.append(
            {
                "name": name,
                "type": {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}.get(
                    main.get("type", ""), main.get("type", "str")
                ),
                "default": info.get_default(call_default_factory=True) if not info.is_required() else None,
                "nullable": nullable,
                "min": low,
                "max": high,
                "exclusive_min": "exclusiveMinimum" in main,
                "exclusive_max": "exclusiveMaximum" in main,
                "choices": main.get("enum"),
                "help": info.description or "",
            }
        )
    return described


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return definitions[reference.rsplit("/", 1)[-1]] if reference else schema


# --- specifications ---------------------------------------------------------------------------------------------


class MethodSpec(Frozen):
    """A method and the options given for it, written ``id`` or ``id:key=value,key=value`` (keys may be dotted)."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    options: dict[str, bool | int | float | str | None] = Field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> MethodSpec:
        name, colon, rest = text.strip().partition(":")
        options: dict[str, bool | int | float | str | None] = {}
        for part in rest.split(",") if colon else []:
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                raise InputError("method", text, "it must be written id or id:key=value,key=value")
            if key.strip() in options:
                raise InputError(f"{name}.{key.strip()}", value, "it is given twice; give it once")
            options[key.strip()] = parse_scalar(value.strip())
        try:
            return cls(id=name, options=options)
        except ValidationError:
            raise InputError("method", text, "it must be written id or id:key=value,key=value") from None

    def __str__(self) -> str:
        options = ",".join(f"{key}={_written(value)}" for key, value in self.options.items())
        return f"{self.id}:{options}" if options else self.id


def parse_scalar(text: str) -> bool | int | float | str | None:
    """A value from the command line: true, false, none, a whole number, a number, else the text itself."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


class TrainingConfig(Frozen):
    """How every run of a comparison trains; equal for all of them."""

    steps: int | None = Field(None, ge=1, le=1_000_000, description="optimizer steps; 300 where neither is given")
    epochs: float | None = Field(None, gt=0, le=1000, description="passes over the training rows, instead of steps")
    batch_size: int = Field(32, ge=1, le=4096, description="rows in one optimizer step")
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="peak rate for all methods; empty: each method's own default"
    )
    weight_decay: float | None = Field(None, ge=0, le=10, description="empty: each method's own default")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps with a linearly rising rate")
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm; empty: no clipping")
    accumulation: int = Field(1, ge=1, le=1024, description="micro-batches that one step's batch is split into")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 computes under autocast, weights stay fp32")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA device where there is one")
    eval_every: int | None = Field(None, ge=1, description="steps between evaluations; empty: a twelfth of the run")
    max_length: int | None = Field(
        None, ge=2, le=100_000, description="tokens a row is cut to; empty: the model's limit"
    )
    selection: Literal["last", "best"] = Field("last", description="which evaluation is the run's score")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        if self.steps is not None and self.epochs is not None:
            raise InputError("epochs", self.epochs, "give either steps or epochs, not both")
        if self.accumulation > self.batch_size:
            raise InputError("accumulation", self.accumulation, f"it must be at most batch_size ({self.batch_size})")
        return self

    def total_steps(self, train_rows: int) -> int:
        if self.epochs is not None:
            return max(1, math.ceil(self.epochs * math.ceil(train_rows / self.batch_size)))
        return self.steps if self.steps is not None else 300

    def eval_interval(self, total_steps: int) -> int:
        return self.eval_every if self.eval_every is not None else max(1, math.ceil(total_steps / 12))


class ComparisonSpec(Frozen):
    """One comparison: methods x seeds on one model and task under equal settings. The unit of work."""

    model: str = Field("tiny-text", min_length=1, max_length=500)
    task: str = Field("acceptability", min_length=1, max_length=500)
    task_options: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    methods: tuple[MethodSpec, ...] = Field(min_length=1, max_length=64)
    seeds: tuple[Seed, ...] = Field((0, 1), min_length=1, max_length=100)
    data_seed: Seed = Field(0, description="draws the rows and their order, the same for all runs")
    train_rows: int | None = Field(None, ge=1, le=100_000_000, description="training rows; empty: the task's default")
    eval_rows: int | None = Field(None, ge=1, le=100_000_000, description="evaluation rows; empty: the task's default")
    training: TrainingConfig = TrainingConfig()
    plan: Literal["auto", "apart"] = Field("auto", description="how the runs are executed")

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise InputError("seeds", list(seeds), "every seed must be given once")
        return seeds

    @field_validator("methods")
    @classmethod
    def _distinct_methods(cls, methods: tuple[MethodSpec, ...]) -> tuple[MethodSpec, ...]:
        labels = [str(method) for method in methods]
        doubled = next((label for label in labels if labels.count(label) > 1), None)
        if doubled:
            raise InputError("methods", doubled, "every method with the same options must be given once")
        return methods


class RunSpec(Frozen):
    """One run of a comparison."""

    run: str
    comparison: ComparisonSpec
    method: MethodSpec
    label: str
    seed: Seed


def run_specs(comparison_id: str, spec: ComparisonSpec) -> list[RunSpec]:
    """The runs of a comparison, seed by seed, so that all methods have their first seed early."""
    return [
        RunSpec(run=f"{comparison_id}-{number}", comparison=spec, method=method, label=str(method), seed=seed)
        for number, (seed, method) in enumerate((seed, method) for seed in spec.seeds for method in spec.methods)
    ]


# --- states and events ------------------------------------------------------------------------------------------


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
    """An evaluation on all evaluation rows; scores by metric name."""

    event: Literal["eval"] = "eval"
    scores: dict[str, float | None]
    loss: float | None
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
    """Rank of every adapted layer. what: `delta` (weight update) or `linear_map` (an adapter's U V)."""

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


class StateRecord(Record):
    """A change of a run's state."""

    event: Literal["state"] = "state"
    state: RunState
    error: str | None = None
    result: RunResult | None = None


Event = StepRecord | EvalRecord | RankRecord | StateRecord


# --- what the store shows of a comparison -----------------------------------------------------------------------


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


# --- what a backbone offers to methods --------------------------------------------------------------------------

SiteSelection = Literal["qv", "qkvo", "six", "all-linear"]
Role = Literal["q", "k", "v", "o", "ffn_in", "ffn_out", "other"]


@dataclass(frozen=True)
class Site:
    """A frozen map y = W x + b that a weight update can be added to.

    A fused projection (GPT-2's c_attn) is several sites of one module: `offset` is the first output feature.
    """

    name: str
    module: str
    layer: int
    role: Role
    in_features: int
    out_features: int
    offset: int = 0
    transposed: bool = False
    """True where the module keeps its weight as (in, out)."""


@dataclass(frozen=True)
class AdapterPlace:
    """A place where a bottleneck adapter goes (METHODS.md, Sites).

    form `post_norm`: `module` is a LayerNorm over z + x; its output becomes LN(z + x + A(LN(z + x))).
    form `sublayer`: `module` gives z, which becomes z + A(z). form `residual`: `module` gives y = z + x, which
    becomes y + A(y).
    """

    name: str
    module: str
    layer: int
    after: Literal["attention", "cross_attention", "ffn"]
    form: Literal["post_norm", "sublayer", "residual"]
    width: int


@dataclass(frozen=True)
class AdapterDefaults:
    """Initialisation and nonlinearity of bottleneck adapters on an architecture."""

    nonlinearity: str
    std: float


class Backbone(Protocol):
    """A frozen transformer with a task head, as methods, tasks and training see it."""

    id: str
    family: str
    modality: Literal["text", "image"]
    model: torch.nn.Module
    hidden_size: int
    layers: int
    default_sites: SiteSelection
    adapter_defaults: AdapterDefaults
    processor: Any
    max_length: int | None

    def sites(self, selection: SiteSelection | None = None) -> tuple[Site, ...]: ...

    def adapter_places(self, kind: Literal["pfeiffer", "houlsby"]) -> tuple[AdapterPlace, ...]: ...

    def head_parameters(self) -> tuple[str, ...]:
        """Names of the task head's parameters in `model` (pooler included where it belongs to the head)."""
        ...

    def bias_parameters(self) -> tuple[str, ...]:
        """Names of all bias vectors outside the head, LayerNorm biases included."""
        ...

    def body_parameters(self) -> tuple[str, ...]:
        """Names of all parameters outside the head, embeddings included."""
        ...

    def parameter_count(self) -> int:
        """Parameters with embeddings, without pooler and head (the papers' divisor)."""
        ...

    def features(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """First token of the last layer, (rows, hidden)."""
        ...

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Output of the head, (rows, outputs)."""
        ...


Emit = Callable[[Event], None]
Events = Iterable[Event]
