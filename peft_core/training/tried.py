"""How many settings were tried to find the learning rate that a run has: from the sweep that is shipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from peft_core.methods import get_method
from peft_core.records import RunSpec


@cache
def default_rates() -> Mapping[str, tuple[float, int]]:
    """By method the rate that the shipped sweep chose over all tasks, and how many settings it tried for it.

    The sweep is ``assets/sweeps/learning_rates.json``; without it no default rate comes from trials.
    """
    file = resources.files("assets") / "sweeps" / "learning_rates.json"
    return chosen_rates(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def chosen_rates(sweep: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """The same from any sweep's JSON: methods that were tried with their default options, and that have a choice."""
    return {
        row["method"]: (row["learning_rate"], row["trials"])
        for row in sweep["overall"]
        if row["learning_rate"] is not None and not row["options"] and ":" not in row["method"]
    }


def trials_of(run: RunSpec, rate: float) -> int:
    """Settings tried for the rate of a run: those of the sweep where it is the method's default and comes from there.

    1 where the rate was given, and where it is a default that no trial chose.
    """
    given = run.comparison.training.learning_rate is not None or "learning_rate" in run.method.options
    chosen, tried = default_rates().get(run.method.id, (None, 1))
    if given or rate != chosen or rate != get_method(run.method.id).Config.model_fields["learning_rate"].default:
        return 1
    return tried
