"""A sweep: which settings of which methods are tried on which tasks, and what a trial left."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from peft_core.records.inputs import Frozen, InputError
from peft_core.records.specs import START, MethodSpec, Seed, TrainingConfig

Scalar = bool | int | float | str | None
Rate = Annotated[float, Field(gt=0, le=10)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1, max_length=64)]
RATE = "learning_rate"


class SweepTask(Frozen):
    """A task of a sweep and the model it is trained on. Empty fields: the sweep's own."""

    task: str = Field(min_length=1, max_length=500)
    model: str | None = Field(None, min_length=1, max_length=500)
    task_options: dict[str, Scalar] = Field(default_factory=dict)
    train_rows: int | None = Field(None, ge=1, le=100_000_000)
    validation_rows: int | None = Field(None, ge=20, le=100_000)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str) else value


class SweepMethod(Frozen):
    """A contender: a method with its fixed options, its learning rates, and other options that are tried with each.

    Its rates are `learning_rates`, or `centre` times the sweep's `span`, or the sweep's `learning_rates`.
    """

    method: MethodSpec
    learning_rates: Rates | None = None
    centre: Rate | None = None
    options: dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=64)]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        return MethodSpec.parse(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> SweepMethod:
        if self.learning_rates is not None and self.centre is not None:
            raise InputError(f"{self.method}.centre", self.centre, "give either learning_rates or a centre, not both")
        for name in (*self.options, *self.method.options):
            if name == RATE or (name in self.options and name in self.method.options):
                raise InputError("methods", f"{self.method}: {name}", "it is swept, so it must be given once")
            if name == START:
                raise InputError("methods", str(self.method), "in a sweep every trial begins with nothing learned")
        return self


class SweepSpec(Frozen):
    """A grid of trials: methods x settings x seeds x tasks, with as many settings for every method.

    span: factors around each method's centre. validation_rows: rows that the choice is made on; they are no training
    rows and never those that a comparison reports.
    """

    model: str = Field("tiny-text", min_length=1, max_length=500)
    tasks: tuple[SweepTask, ...] = Field(min_length=1, max_length=64)
    methods: tuple[SweepMethod, ...] = Field(min_length=1, max_length=64)
    learning_rates: Rates | None = None
    span: Annotated[tuple[Annotated[float, Field(gt=0, le=1e6)], ...], Field(min_length=1, max_length=64)] | None = None
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, max_length=100)
    data_seed: Seed = 0
    train_rows: int | None = Field(None, ge=1, le=100_000_000)
    validation_rows: int = Field(500, ge=20, le=100_000)
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fair(self) -> SweepSpec:
        if self.training.learning_rate is not None:
            raise InputError("training.learning_rate", self.training.learning_rate, "it is swept: give learning_rates")
        _distinct("tasks", [f"{task.task} on {self.model_of(task)}" for task in self.tasks])
        _distinct("methods", [str(entry.method) for entry in self.methods])
        _distinct("seeds", list(self.seeds))
        counts = {str(entry.method): len(self.settings(entry)) for entry in self.methods}
        if max(counts.values()) > 64:
            raise InputError("methods", f"{max(counts.values())} settings", "a method may have at most 64")
        most = max(counts, key=counts.__getitem__)
        unequal = next((name for name, count in counts.items() if count != counts[most]), None)
        if unequal is not None:
            raise InputError(
                "methods",
                f"{counts[unequal]} settings of {unequal}",
                f"every method must have as many trials: {most} has {counts[most]}",
            )
        return self

    def model_of(self, task: SweepTask) -> str:
        return task.model if task.model is not None else self.model

    def rates(self, entry: SweepMethod) -> tuple[float, ...]:
        """The learning rates of a contender, ascending; six significant digits where they come from a span.

        Raises:
            InputError: nothing says which, one is given twice, or one is out of bounds.
        """
        given: Sequence[float] | None = entry.learning_rates
        if given is None and entry.centre is not None and self.span is not None:
            given = [float(f"{entry.centre * factor:.6g}") for factor in self.span]
        elif given is None and entry.centre is None:
            given = self.learning_rates
        if given is None:
            raise InputError(
                "methods", str(entry.method), "it needs learning_rates, or a centre while the sweep has a span"
            )
        _distinct(f"{entry.method}.learning_rates", list(given))
        if max(given) > 10:
            raise InputError(f"{entry.method}.learning_rates", max(given), "it must be a number above 0 to 10")
        return tuple(sorted(given))

    def settings(self, entry: SweepMethod) -> tuple[MethodSpec, ...]:
        """What is tried of a contender: every combination of its options at every rate, rates ascending in each."""
        _distinct_values(entry)
        combinations = itertools.product(*entry.options.values())
        return tuple(
            MethodSpec(
                id=entry.method.id,
                options={**entry.method.options, **dict(zip(entry.options, values, strict=True)), RATE: rate},
            )
            for values in combinations
            for rate in self.rates(entry)
        )


def _distinct(field: str, values: Sequence[object]) -> None:
    doubled = next((value for value in values if values.count(value) > 1), None)
    if doubled is not None:
        raise InputError(field, doubled, "it must be given once")


def _distinct_values(entry: SweepMethod) -> None:
    for name, values in entry.options.items():
        _distinct(f"{entry.method}.options.{name}", [repr(value) for value in values])


class Trial(Frozen):
    """One trained cell of the grid.

    key: a digest of everything that decides its outcome. method: the contender, as the sweep lists it. setting: all of
    its options, the rate among them. score: the first metric on the validation rows; None where it failed or is not
    defined. environment: index into the file's environments.
    """

    key: str
    model: str
    task: str
    method: str
    setting: MethodSpec
    learning_rate: float
    seed: int
    metric: str
    score: float | None
    baseline_score: float | None
    steps: int
    seconds: float | None
    error: str | None = None
    environment: int


class Absence(Frozen):
    """A method that has no place in a task's model, and why."""

    model: str
    task: str
    method: str
    reason: str
