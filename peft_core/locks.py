"""Budget locks: the size of each method solved so that a comparison has equal parameters, equal rank or equal FLOPs.

Each method's config names the one option that sets its size (`MethodConfig.free`); it is moved to where the figure
comes nearest to a reference method's, counted on the model's shape without weights. Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from peft_core.budget import counts_of
from peft_core.methods import get_method, resolve
from peft_core.metrics.flops import adapter_flops_nominal
from peft_core.metrics.parameters import trainable_parameters
from peft_core.records import BudgetLock, ComparisonSpec, InputError, MethodSpec, Problem, describe_fields
from peft_core.training.data import chosen_tasks
from peft_core.training.shape import attach_shape

Kind = Literal["parameters", "rank", "flops"]
UNITS: dict[str, str] = {"parameters": "parameters", "rank": "rank", "flops": "nominal FLOPs a token"}
GUESSES = 8
"""Sizes tried by proportion before halving: figures are nearly linear in the size."""

Figure = Callable[[MethodSpec], float | None]


@dataclass(frozen=True)
class _Moved:
    """Where a method's size ends, and its figure there."""

    method: MethodSpec
    figure: float | None
    said: str


def lock_comparison(spec: ComparisonSpec, kind: str, to: str | None = None) -> ComparisonSpec:
    """The comparison with the methods that a lock makes of its own, and a record of what was asked.

    Args:
        kind: parameters (trainable, head apart), rank (the largest that a map may have; for a method that spreads a
            budget over the maps, their mean at the end) or flops (nominal, per token, forward).
        to: label of the reference; None for the first method.

    Raises:
        InputError: as `locked_methods`, or two methods that become the same one.
    """
    tasks = chosen_tasks(spec)
    methods, record = locked_methods(spec.model, spec.methods, kind, to, len(tasks), tasks[0][0].info.problem)
    for place, method in enumerate(methods):
        if method in methods[:place]:
            pair = f"{spec.methods[methods.index(method)]} and {spec.methods[place]}"
            raise InputError("lock", kind, f"under it {pair} become the same method; leave one of them out")
    return spec.model_copy(update={"methods": methods, "lock": record})


def locked_methods(
    model: str,
    methods: Sequence[MethodSpec],
    kind: str,
    to: str | None = None,
    tasks: int = 1,
    problem: Problem = "classification",
) -> tuple[tuple[MethodSpec, ...], BudgetLock]:
    """The methods, each as near to the reference's figure as its size allows, and what was changed.

    Raises:
        InputError: an unknown kind or reference, a reference without such a figure, or methods that do not fit.
    """
    if kind not in get_args(Kind):
        raise InputError("lock", kind, f"it must be one of {', '.join(get_args(Kind))}")
    reference = _reference(methods, to)

    def figure(method: MethodSpec) -> float | None:
        return figure_of(model, method, kind, tasks, problem)

    target = figure(reference)
    if not target:
        raise InputError("lock_to", str(reference), f"it has no {UNITS[kind]} that others could be equal to")
    moved = [
        _Moved(method, target, f"{method} is the reference: {_counted(_written(target), kind)}.")
        if method == reference
        else _move(method, figure, target, kind)
        for method in methods
    ]
    record = BudgetLock.model_validate(
        {
            "kind": kind,
            "to": str(reference),
            "asked": tuple(methods),
            "changes": tuple(entry.said for entry in moved),
        }
    )
    return tuple(entry.method for entry in moved), record


def _reference(methods: Sequence[MethodSpec], to: str | None) -> MethodSpec:
    if to is None or not to.strip():
        return methods[0]
    wanted = str(MethodSpec.parse(to))
    found = next((method for method in methods if str(method) == wanted), None)
    if found is None:
        raise InputError("lock_to", to, f"it must be one of {'; '.join(map(str, methods))}")
    return found


def figure_of(
    model: str, method: MethodSpec, kind: str, tasks: int = 1, problem: Problem = "classification"
) -> float | None:
    """What a lock makes equal, of one method; None where it has no such figure."""
    attached = attach_shape(model, method, tasks=tasks, problem=problem)[0]
    if kind == "parameters":
        return trainable_parameters(counts_of(attached))
    if kind == "flops":
        return adapter_flops_nominal(counts_of(attached), attached.backbone.passes)
    updates = [update for update in attached.updates() if update.kind != "bias"]
    if attached.total_rank is not None and updates:
        return attached.total_rank / len(updates)
    return max((update.bound for update in updates), default=None)


def _move(method: MethodSpec, figure: Figure, target: float, kind: str) -> _Moved:
    config = resolve(method)
    now, field = figure(method), config.free
    if now is None:
        return _Moved(method, None, f"{method} stays as it is: it has no {UNITS[kind]}.")
    if field is None:
        return _Moved(method, now, f"{method} stays as it is: it has no size to change; {_near(now, target, kind)}.")
    start: int = getattr(config, field)

    def at(size: int) -> float | None:
        """The figure at a size; None where the method does not fit the model with it."""
        try:
            return figure(_sized(method, field, size, start))
        except InputError:
            return None

    size, found = _nearest(at, start, now, target, *_range(method, field), config.free_step)
    change = f"{field} {start} -> {size}" if size != start else f"{field} stays {size}"
    sized = _sized(method, field, size, start)
    return _Moved(sized, found, f"{method}: {change}: {_near(found, target, kind)}.")


def _sized(method: MethodSpec, field: str, size: int, start: int) -> MethodSpec:
    """The method with another size; as it was given where that is its own."""
    return method if size == start else MethodSpec(id=method.id, options={**method.options, field: size})


def _range(method: MethodSpec, field: str) -> tuple[int, int]:
    described = next(entry for entry in describe_fields(get_method(method.id).Config) if entry["name"] == field)
    return int(described["min"]), int(described["max"])


def _nearest(
    at: Callable[[int], float | None], start: int, now: float, target: float, low: int, high: int, step: int
) -> tuple[int, float]:
    """The size whose figure is nearest to the target, and the figure; the smaller size of two equally near.

    `at` rises with the size, and gives None for a size that does not fit; those lie at the ends.

    Args:
        start, now: a size that fits, and its figure.
        low, high, step: smallest and largest size, and what it must be a multiple of.
    """
    known: dict[int, float] = {start: now}
    below, above = low - low % -step - step, high - high % step + step
    if now <= target:
        below = start
    if now >= target:
        above = start
    while above - below > step:
        size = _guess(known, below, above, target, step)
        found = at(size)
        if found is not None:
            known[size] = found
        if (found is None and size < start) or (found is not None and found < target):
            below = size
        elif found is not None and found == target:
            break
        else:
            above = size
    return min(known.items(), key=lambda entry: (abs(entry[1] - target), entry[0]))


def _guess(known: dict[int, float], below: int, above: int, target: float, step: int) -> int:
    """A size between the two: where a line through what is known there meets the target, else the middle."""
    place = (below + above) / 2
    if len(known) < GUESSES:
        nearest = min(known, key=lambda size: abs(known[size] - target))
        other = (known[below], known[above]) if below in known and above in known else None
        if other and other[0] != other[1]:
            place = below + (above - below) * (target - other[0]) / (other[1] - other[0])
        elif known[nearest] > 0:
            place = nearest * target / known[nearest]
    size = step * round(place / step)
    return min(max(size, below + step), above - step)


def _near(figure: float, target: float, kind: str) -> str:
    share = "equal" if figure == target else f"{100 * (figure - target) / target:+.1f} %"
    return f"{_counted(f'{_written(figure)} of {_written(target)}', kind)} ({share})"


def _counted(figures: str, kind: str) -> str:
    return f"{UNITS[kind]} {figures}" if kind == "rank" else f"{figures} {UNITS[kind]}"


def _written(figure: float) -> str:
    return f"{figure:,.0f}" if float(figure).is_integer() else f"{figure:,.2f}"
