"""Results say how many settings were tried for their learning rate."""

from __future__ import annotations

import json

import pytest

from peft_core.methods import get_method, list_methods
from peft_core.records import ComparisonSpec, MethodSpec, TrainingConfig, run_specs
from peft_core.training import tried
from scripts.default_rates import table


def overall(method: str, rate: float | None, **fields):
    return {"method": method, "learning_rate": rate, "trials": 5, "options": {}, "edge": None} | fields


def default_of(method: str) -> float:
    return get_method(method).Config().learning_rate


@pytest.mark.parametrize(
    ("method", "training", "expected"),
    [
        ("lora", {}, 5),
        ("lora:rank=2", {}, 5),
        ("lora", {"learning_rate": 0.5}, 1),
        ("lora:learning_rate=0.5", {}, 1),
        (f"lora:learning_rate={default_of('lora')}", {}, 1),
        ("bitfit", {}, 1),
        ("head", {}, 1),
        ("full", {}, 1),
    ],
)
def test_trials_are_the_sweeps_where_the_rate_is_its_choice(method, training, expected, monkeypatch):
    sweep = {
        "overall": [
            overall("lora", default_of("lora")),
            overall("bitfit", 2 * default_of("bitfit")),
            overall("head", None),
            overall("lora:rank=4", 0.5),
        ]
    }
    monkeypatch.setattr(tried, "default_rates", lambda: tried.chosen_rates(sweep))
    comparison = ComparisonSpec(methods=(MethodSpec.parse(method),), training=TrainingConfig(**training))
    (run, _) = run_specs("c", comparison)
    rate = training.get("learning_rate") or run.method.options.get("learning_rate") or default_of(run.method.id)
    assert tried.trials_of(run, rate) == expected


def test_the_table_of_defaults_says_which_differ(tmp_path):
    rows = [overall(method.id, default_of(method.id)) for method in list_methods()]
    lines, same = table(json.loads(json.dumps({"overall": rows})))
    assert same and len(lines) == 1 + len(rows) and not any(" no " in line for line in lines)
    rows[0] |= {"learning_rate": 9.0, "edge": "highest"}
    lines, same = table({"overall": rows})
    assert not same and "no  highest" in lines[1] and f"{9:g}" in lines[1]
