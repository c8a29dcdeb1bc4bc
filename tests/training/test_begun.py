"""Runs that begin with stored values: every method goes on from them, or says why not; a checkpoint holds them."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
import torch

from peft_core.methods import list_methods
from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.training import train_comparison
from tests.conftest import home, miniature
from tests.methods.family_checks import outputs, trained
from tests.methods.test_contract import attach, take_steps


@pytest.mark.parametrize("method_id", [method.id for method in list_methods()])
def test_every_method_trains_on_from_what_it_stored_or_says_why_not(method_id):
    family = home(method_id)
    first = trained(miniature(family), method_id)
    again = attach(miniature(family), method_id, seed=7)
    again.load_stored(first.stored(), first.stored_head())
    again.train(False)
    torch.testing.assert_close(outputs(again), outputs(first), rtol=0, atol=1e-5)
    if again.one_way is not None:
        assert "training cannot go on from" in again.one_way
        return
    before = outputs(again)
    losses = take_steps(again, 3, rate=1e-3)
    again.train(False)
    assert all(map(lambda loss: loss == loss and loss < 10, losses)) and not torch.equal(outputs(again), before)
    last = attach(miniature(family), method_id, seed=7)
    last.load_stored(again.stored(), again.stored_head())
    last.train(False)
    torch.testing.assert_close(outputs(last), outputs(again), rtol=0, atol=1e-5)


def train(folder, *methods: str, stop=lambda run: False, resume=False, steps=6):
    """By run its last state, after all have ended."""
    spec = ComparisonSpec(
        methods=tuple(map(MethodSpec.parse, methods)),
        seeds=(0,),
        training=TrainingConfig(steps=steps, batch_size=16, eval_every=2),
        train_rows=64,
        eval_rows=32,
        plan="apart",
    )
    ends = {}
    train_comparison(
        spec,
        run_specs("c", spec),
        folder=folder,
        emit=lambda event: ends.update({event.run: event}) if event.event == "state" else None,
        notice=lambda _: None,
        stop=stop,
        resume=resume,
    )
    return ends


def test_runs_that_went_on_are_resumed_bit_for_bit(tmp_path):
    methods = ("increlora:target_rank=3", "sora:rank=4")
    assert all(end.state is RunState.FINISHED for end in train(tmp_path / "first", *methods, steps=14).values())
    on = []
    for number, method in enumerate(methods):
        on.append(f"{method},from=aaaaaaaa-{number}")
        for name in ("whole", "halves"):
            kept = tmp_path / name / "starts" / f"aaaaaaaa-{number}"
            shutil.copytree(tmp_path / "first" / f"c-{number}" / "adapter", kept)
            (kept / "model.json").write_text(json.dumps({}))
    whole, asked = train(tmp_path / "whole", *on), Counter()

    def stop(run: str) -> bool:
        asked[run] += 1
        return asked[run] > 5

    assert all(
        end.state is RunState.CANCELLED and 0 < end.step < 6
        for end in train(tmp_path / "halves", *on, stop=stop).values()
    )
    rest = train(tmp_path / "halves", *on, resume=True)
    for run, end in rest.items():
        assert end.state is whole[run].state is RunState.FINISHED, end.error
        assert end.result.begun_from == f"aaaaaaaa-{run[-1]}, head included"
        for name in ("adapter.safetensors", "head.safetensors"):
            one, other = (tmp_path / part / run / "adapter" / name for part in ("whole", "halves"))
            assert one.read_bytes() == other.read_bytes(), (run, name)


def test_a_start_that_is_not_there_fails_the_run_with_a_sentence(tmp_path):
    (end,) = train(tmp_path, "lora:from=aaaaaaaa-0").values()
    assert end.state is RunState.FAILED and "not on this disk any more" in end.error
