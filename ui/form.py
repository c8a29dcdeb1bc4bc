"""The form of the Compare tab: what it offers, and its text turned into a checked `ComparisonSpec`.

Everything typed arrives as text and is checked here, so that nothing typed is lost and every message names its field:
`model`, `seeds`, `training.batch_size`, `methods.0.rank`, `task_options.spectrum`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from peft_core.records import (
    MAX_SEED,
    ComparisonSpec,
    InputError,
    MethodSpec,
    TrainingConfig,
    checked,
    describe_fields,
    parse_task_option,
)
from peft_core.runs import example_spec

Scalar = bool | int | float | str | None
Options = dict[str, Scalar]
Resolve = Callable[[MethodSpec], BaseModel]
COMPARISON_FIELDS = ("data_seed", "train_rows", "eval_rows", "plan")


class MethodRow(BaseModel):
    """One method of the form."""

    id: str = ""
    options: Options = Field(default_factory=dict)


class Form(BaseModel):
    """What the page sends: texts as they were typed."""

    model: str = ""
    task: str = ""
    task_options: Options = Field(default_factory=dict)
    methods: list[MethodRow] = Field(default_factory=list, max_length=64)
    seeds: str = ""
    data_seed: Scalar = None
    train_rows: Scalar = None
    eval_rows: Scalar = None
    plan: Scalar = None
    lock: str = Field("", max_length=100)
    lock_to: str = Field("", max_length=20, description="place of the reference among the methods; empty: the first")
    training: Options = Field(default_factory=dict)


class Look(BaseModel):
    """What the page sends to be shown what is in a task's rows."""

    model: str = Field("", max_length=500)
    task: str = Field(min_length=1, max_length=500)
    task_options: Options = Field(default_factory=dict)
    max_length: Scalar = None


@dataclass(frozen=True)
class FieldError:
    """A message and the field of the form it belongs to."""

    field: str
    message: str


class FormError(ValueError):
    """A form that cannot be started, with every message found."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = list(errors)
        super().__init__(" ".join(error.message for error in self.errors))


def fields_of(kind: type[BaseModel], only: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """What the page draws the inputs of a config from."""
    kept = [field for field in describe_fields(kind) if only is None or field["name"] in only]
    return [{**field, "default": written(field["default"])} for field in kept]


def spec_from_form(form: Form, resolve: Resolve) -> ComparisonSpec:
    """The specification that a form asks for; `FormError` with all messages otherwise."""
    errors: list[FieldError] = []

    def attempt(part: Callable[[], Any], name: str | None = None) -> Any:
        try:
            return part()
        except InputError as error:
            errors.append(FieldError(name or error.field, str(error)))
        return None

    values: dict[str, Any] = {"model": form.model.strip(), "task": form.task.strip()}
    values["methods"] = [
        attempt(lambda row=row, place=place: _method(row, place, resolve))  # type: ignore[misc]
        for place, row in enumerate(form.methods)
    ]
    values["seeds"] = attempt(lambda: _seeds(form.seeds), "seeds")
    values["training"] = attempt(lambda: _training(form.training))
    values["task_options"] = task_options(form.task_options)
    values |= typed({name: getattr(form, name) for name in COMPARISON_FIELDS}, ComparisonSpec)
    if errors:
        raise FormError(errors)
    spec = attempt(lambda: checked(ComparisonSpec, values))
    if errors:
        raise FormError([FieldError(_place_of(error.field, values), error.message) for error in errors])
    return spec


def field_of(error: InputError, spec: ComparisonSpec) -> str:
    """The field of the form that an error of the engine belongs to: `lora.rank` becomes `methods.0.rank`."""
    return _place_of(error.field, spec.model_dump())


def _place_of(field: str, values: Mapping[str, Any]) -> str:
    head, _, rest = field.partition(".")
    methods = [str(method.id if isinstance(method, MethodSpec) else method["id"]) for method in values["methods"]]
    if head in methods:
        return f"methods.{methods.index(head)}.{rest}" if rest else f"methods.{methods.index(head)}"
    if head in TrainingConfig.model_fields:
        return f"training.{head}"
    return head if head in ("seeds", "methods") else field


def _method(row: MethodRow, place: int, resolve: Resolve) -> MethodSpec:
    """A row of the form. Its options are checked by the method's own config."""
    options = {str(key): scalar(value) for key, value in given(row.options).items()}
    try:
        spec = checked(MethodSpec, {"id": row.id, "options": options}, "method.")
        resolve(spec)
    except InputError as error:
        name = error.field.partition(".")[2] or error.field
        where = f"methods.{place}" if name in ("id", "method") else f"methods.{place}.{name}"
        raise _moved(error, where) from None
    return spec


def _moved(error: InputError, field: str) -> InputError:
    """The same sentence at another field."""
    moved = InputError(error.field, error.value, error.allowed)
    moved.field = field
    return moved


def _training(values: Mapping[str, Any]) -> TrainingConfig:
    try:
        return checked(TrainingConfig, typed(values, TrainingConfig))
    except InputError as error:
        raise _moved(error, f"training.{error.field.removeprefix('training.')}") from None


def _seeds(text: str) -> list[int]:
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdigit() and int(part[:30]) <= MAX_SEED for part in parts):
        raise InputError("seeds", text, "they must be whole numbers from 0 to 2^63 - 1, separated by commas")
    return [int(part) for part in parts]


def typed(values: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """Text of the form as numbers where the config has numbers; what is no number stays text for its message."""
    types = {field["name"]: field["type"] for field in describe_fields(kind)}
    return {name: _number(value, types.get(name, "str")) for name, value in given(values).items()}


def given(values: Mapping[str, Any]) -> dict[str, str]:
    """What was typed; an empty field means the default."""
    texts = {str(name): written(value).strip() for name, value in values.items()}
    return {name: text for name, text in texts.items() if text}


def task_options(values: Mapping[str, Any]) -> Options:
    """Options of a task as the command line reads them."""
    return {name: parse_task_option(name, text) for name, text in given(values).items()}


def _number(text: str, kind: str) -> Any:
    try:
        return int(text[:400]) if kind == "int" else float(text) if kind == "float" else text
    except ValueError:
        return text


def scalar(text: str) -> Scalar:
    """An option's text as the command line reads it."""
    return MethodSpec.parse(f"x:value={text}").options["value"] if "," not in text else text


def written(value: object) -> str:
    """A value as the form shows it."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def first_form() -> Form:
    """What the form holds before anything has been shown: the comparison of the shipped example."""
    return form_from_spec(ComparisonSpec(methods=example_spec().methods))


def form_from_spec(spec: ComparisonSpec) -> Form:
    """The form that gives this specification again."""
    return Form(
        model=spec.model,
        task=spec.task,
        task_options=texts(spec.task_options),
        methods=[MethodRow(id=method.id, options=texts(method.options)) for method in asked_methods(spec)],
        lock=spec.lock.kind if spec.lock else "",
        lock_to=_place_in(spec) if spec.lock else "",
        seeds=", ".join(map(str, spec.seeds)),
        training=texts(spec.training.model_dump(exclude_unset=True)),
        **texts({name: getattr(spec, name) for name in COMPARISON_FIELDS}),
    )


def lock_reference(form: Form, methods: Sequence[MethodSpec]) -> str | None:
    """The label of the method that a lock makes the others equal to; None for the first one.

    Raises:
        InputError: there is no such row.
    """
    text = form.lock_to.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < len(methods)):
        raise InputError("lock_to", text, "choose one of the methods")
    return str(methods[int(text)])


def _place_in(spec: ComparisonSpec) -> str:
    """Where the lock's reference stands among the methods that were given; empty for the first."""
    names = [str(method) for method in asked_methods(spec)]
    place = names.index(spec.lock.to) if spec.lock and spec.lock.to in names else 0
    return str(place) if place else ""


def asked_methods(spec: ComparisonSpec) -> tuple[MethodSpec, ...]:
    """The methods as they were given, before a budget lock."""
    return spec.lock.asked if spec.lock else spec.methods


def texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: written(value) for name, value in values.items()}


def command_line(spec: ComparisonSpec) -> str:
    """The command that runs the same comparison in a terminal."""
    parts = ["python", "-m", "peft_core", "compare", "--model", spec.model, "--task", spec.task]
    for name, value in spec.task_options.items():
        parts += ["--task-option", f"{name}={_said(value)}"]
    for method in asked_methods(spec):
        parts += ["--method", str(method)]
    if spec.lock:
        parts += ["--lock", spec.lock.kind, "--lock-to", spec.lock.to]
    if spec.seeds == tuple(range(len(spec.seeds))):
        parts += ["--seeds", str(len(spec.seeds))]
    else:
        parts += ["--seed-list", ",".join(map(str, spec.seeds))]
    parts += _options(spec.training, TrainingConfig(), tuple(TrainingConfig.model_fields))
    parts += _options(spec, ComparisonSpec(methods=spec.methods), COMPARISON_FIELDS)
    return shlex.join(parts)


def form_command(form: Form, spec: ComparisonSpec) -> str:
    """The command of a form's comparison, whose lock is not solved yet.

    Raises:
        InputError: the lock's reference is no row.
    """
    line = command_line(spec)
    if not form.lock:
        return line
    to = lock_reference(form, spec.methods) or str(spec.methods[0])
    return f"{line} {shlex.join(['--lock', form.lock, '--lock-to', to])}"


def preview_line(model: str, task: str, options: Mapping[str, Any], max_length: str) -> str:
    """The command that shows the same look at the data in a terminal."""
    parts = ["python", "-m", "peft_core", "preview", "--task", task, *(["--model", model] if model else [])]
    for name, value in options.items():
        parts += ["--task-option", f"{name}={_said(value)}"]
    return shlex.join(parts + (["--max-length", max_length] if max_length else []))


def _options(values: BaseModel, default: BaseModel, names: Sequence[str]) -> list[str]:
    """The options that differ from the default, as the command line writes them."""
    changed = [name for name in names if getattr(values, name) != getattr(default, name)]
    return [part for name in changed for part in ("--" + name.replace("_", "-"), _said(getattr(values, name)))]


def _said(value: object) -> str:
    return "none" if value is None else written(value)
