"""How values from outside are checked, and how a bad one is told: its field, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

T = TypeVar("T", bound=BaseModel)


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
    return InputError(field, first["input"], _allowed(kind, location, first["msg"], first.get("ctx", {})))


def _allowed(kind: type[BaseModel], location: Sequence[str], message: str, context: Mapping[str, Any]) -> str:
    """What a field takes, from its bounds where it has them, else from pydantic's message."""
    for bound, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        if bound in context and len(location) > 1 and location[-1].isdigit():
            return f"it must be {words} {context[bound]}"
    described = describe_fields(kind)
    name = ".".join(location)
    field = next((entry for entry in described if entry["name"] == name), None)
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
    """One entry a field: name, type, default, min, max, choices, help. Forms and command-line help are made from it.

    The fields of an optional group are listed as ``group.field`` with the default None: left out, there is no group.
    """
    schema = kind.model_json_schema()
    definitions = schema.get("$defs", {})
    described = []
    for name, entry in schema.get("properties", {}).items():
        options = [_resolve(option, definitions) for option in entry.get("anyOf", [entry])]
        nullable = any(option.get("type") == "null" for option in options)
        main = next((option for option in options if option.get("type") != "null"), {})
        info = kind.model_fields[name]
        if group := _group(info.annotation):
            described += [
                field | {"name": f"{name}.{field['name']}", "default": None, "nullable": True}
                for field in describe_fields(group)
            ]
            continue
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


def _group(annotation: Any) -> type[BaseModel] | None:
    """The model that an optional field holds, where it holds one."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return definitions[reference.rsplit("/", 1)[-1]] if reference else schema
