"""The methods' default learning rates are what the shipped sweep chose, each over all of its tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peft_core.methods import list_methods
from peft_core.records import Absence, SweepSpec, Trial
from peft_core.report.choice import choices
from peft_core.training.tried import default_rates

FILE = Path(__file__).parents[2] / "assets" / "sweeps" / "learning_rates.json"
SWEEP = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", list_methods(), ids=lambda method: method.id)
def test_a_methods_default_rate_is_the_sweeps_choice(method):
    rate, trials = default_rates()[method.id]
    assert method.Config().learning_rate == rate and trials == 5


def test_the_sweep_is_whole_and_its_choices_follow_from_its_trials():
    again = choices(
        SweepSpec.model_validate(SWEEP["spec"]),
        [Trial.model_validate(trial) for trial in SWEEP["trials"]],
        [Absence.model_validate(absence) for absence in SWEEP["absent"]],
    )
    assert SWEEP["complete"] and json.loads(json.dumps(again)) == {name: SWEEP[name] for name in again}
