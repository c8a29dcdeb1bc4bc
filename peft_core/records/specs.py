"""What is to be done: a method with its options, a comparison, its runs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from peft_core.records.inputs import Frozen, InputError

MAX_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


START = "from"
"""The option that every method has beside its own: the finished run whose learned values it begins with."""


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

    @property
    def start(self) -> str | None:
        """The finished run whose learned values it begins with; None: it begins with nothing learned."""
        run = self.options.get(START)
        return run if isinstance(run, str) else None

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


COLUMN_NAMES = ("text", "text2", "label", "question", "context", "answers", "target", "image")
TEXT_OPTIONS = frozenset(
    (*COLUMN_NAMES, "kind", "encoding", "delimiter", "config", "revision", "split", "eval_split", "protocol")
)
"""Options of tasks that are names: a column called 2024 is no number."""


def parse_task_option(name: str, text: str) -> bool | int | float | str | None:
    """The value of a task's option from the command line or a form; a name stays the text that it is."""
    if name.rpartition(".")[2] in TEXT_OPTIONS and text.lower() not in ("none", "null"):
        return text
    return parse_scalar(text)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


class TrainingConfig(Frozen):
    """How every run of a comparison trains; equal for all of them."""

    steps: int | None = Field(None, ge=1, le=1_000_000, description="optimizer steps; 240 where neither is given")
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
    gradient_checkpointing: bool = Field(
        False, description="compute each layer's activations again for the backward pass instead of keeping them"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a CUDA device where there is one")
    eval_every: int | None = Field(None, ge=1, description="steps between evaluations; empty: a tenth of the run")
    rank_every: int = Field(1, ge=1, description="evaluations between two measurements of the rank; the last has one")
    rank_tolerance: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the largest singular value that counts as zero; empty: the larger side times 2.2e-16",
    )
    max_length: int | None = Field(
        None, ge=2, le=100_000, description="tokens a row is cut to; empty: the model's limit"
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=100_000, description="tokens of a written answer; empty: as many as the longest training target"
    )
    temperature: float = Field(
        10.0, ge=1, le=1000, description="several tasks: a batch is of a task with probability ~ rows^(1/temperature)"
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
        return self.steps if self.steps is not None else 240

    def eval_interval(self, total_steps: int) -> int:
        return self.eval_every if self.eval_every is not None else max(1, math.ceil(total_steps / 10))


LOCKS = {"parameters": "equal parameters", "rank": "equal rank", "flops": "equal nominal FLOPs"}


class BudgetLock(Frozen):
    """What was asked under a budget lock. The comparison's own methods are what it made of them, and what runs."""

    kind: Literal["parameters", "rank", "flops"]
    to: str = Field(max_length=1000, description="label of the reference method, which stays as it is")
    asked: tuple[MethodSpec, ...] = Field(min_length=1, max_length=64, description="the methods as they were given")
    changes: tuple[str, ...] = Field(description="what was changed, and how near it comes: a sentence a method")

    @property
    def title(self) -> str:
        return f"{LOCKS[self.kind].capitalize()}: as near to {self.to} as each method comes."


class ComparisonSpec(Frozen):
    """One comparison: methods x seeds on one model and task under equal settings. The unit of work."""

    model: str = Field("tiny-text", min_length=1, max_length=500)
    task: str = Field(
        "acceptability", min_length=1, max_length=500, description="a task, or several trained together: a+b+c"
    )
    task_options: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    methods: tuple[MethodSpec, ...] = Field(min_length=1, max_length=64)
    lock: BudgetLock | None = Field(None, description="the budget that the methods were made equal in; empty: free")
    seeds: tuple[Seed, ...] = Field((0, 1), min_length=1, max_length=100)
    data_seed: Seed = Field(0, description="draws the rows and their order, the same for all runs")
    train_rows: int | None = Field(None, ge=1, le=100_000_000, description="training rows; empty: the task's default")
    eval_rows: int | None = Field(None, ge=1, le=100_000_000, description="evaluation rows; empty: the task's default")
    training: TrainingConfig = TrainingConfig()
    plan: Literal["auto", "apart", "lockstep", "workers"] = Field(
        "auto", description="runs in turns, folded into one batch, or spread over workers; auto: as measured"
    )

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
