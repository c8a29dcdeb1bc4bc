"""``compare --preset``: the papers' settings as values of a comparison, where nothing else is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peft_core.records import InputError, MethodSpec

if TYPE_CHECKING:
    from peft_core.tasks._presets import Preset


def with_presets(names: Sequence[str], values: dict[str, Any], training: dict[str, Any]) -> None:
    """Fills in what presets say: methods, and model, training settings and protocol that are not given.

    Args:
        values: fields of a comparison; its task is given.
        training: fields of its training settings.

    Raises:
        InputError: no such preset, or two that disagree on what nothing else says.
    """
    chosen = [_named(name, str(values.get("task"))) for name in names]
    given = [name for name in ("steps", "epochs") if training.get(name) is not None]
    said = _agreed(chosen, "training", skip={*training, *(("steps", "epochs") if given else ())})
    training.update(said)
    if "model" not in values:
        values.update(_agreed_on(chosen, "model"))
    options = dict(values.get("task_options") or {})
    if "protocol" not in options:
        options.update(_agreed_on(chosen, "protocol", "task_options.protocol"))
    values["task_options"] = options
    methods = [MethodSpec(id=preset.method, options=dict(preset.options)) for preset in chosen]
    values["methods"] = [*values.get("methods", []), *methods]


def _named(name: str, task: str) -> Preset:
    from peft_core.tasks import presets

    listed = presets(task)
    if not listed:
        raise InputError("preset", name, f"the papers print no settings for the task {task!r}")
    found = next((preset for preset in listed if preset.name == name), None)
    if found is None:
        raise InputError("preset", name, f"those of {task} are {', '.join(preset.name for preset in listed)}")
    return found


def _agreed(presets: Sequence[Preset], part: str, skip: set[str]) -> dict[str, Any]:
    """The settings of all presets together, those in `skip` left out."""
    found: dict[str, tuple[Any, str]] = {}
    for preset in presets:
        for field, value in getattr(preset, part).items():
            if field not in skip:
                _same(f"{part}.{field}", found.setdefault(field, (value, preset.name)), (value, preset.name))
    return {field: value for field, (value, _) in found.items()}


def _agreed_on(presets: Sequence[Preset], attribute: str, field: str | None = None) -> dict[str, Any]:
    first = (getattr(presets[0], attribute), presets[0].name)
    for preset in presets[1:]:
        _same(field or attribute, first, (getattr(preset, attribute), preset.name))
    return {attribute: first[0]}


def _same(field: str, first: tuple[Any, str], second: tuple[Any, str]) -> None:
    if first[0] != second[0]:
        said = f"{first[0]} in {first[1]} and {second[0]} in {second[1]}; say which one with an option of its own"
        raise InputError(field, f"{first[0]} or {second[0]}", f"the presets disagree: {said}")
