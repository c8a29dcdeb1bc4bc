"""A comparison executed as its plan says: the same curves however it is spread, stopped or resumed."""

from __future__ import annotations

import errno

import pytest
import torch

from peft_core.records import (
    ComparisonSpec,
    InputError,
    MethodSpec,
    Offer,
    Plan,
    RunFailure,
    RunState,
    TrainingConfig,
    run_specs,
)
from peft_core.training import cohort, train_comparison, turns
from peft_core.training.loop import Run

METHODS = ("lora:rank=2", "capaboost_lora:rank=2,d=2,sparsity=0.5", "full", "bitfit")
GROUP = ("c-0", "c-1", "c-3")
LOCKSTEP = Plan(execution="lockstep", groups=(GROUP,))


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """Runs have a turn of one step, so that their steps are mixed as they are in long runs."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.001)


def execute(folder, *methods, runs=None, stop=lambda run, step: False, resume=False, plan=None, **options):
    """Trains; gives the curves by run id, how each run ended, and what was noticed."""
    training = TrainingConfig(**{"steps": 8, "batch_size": 4, "eval_every": 4} | options.pop("training", {}))
    chosen = tuple(MethodSpec.parse(method) for method in methods or METHODS)
    asked = {"plan": options.pop("asked")} if "asked" in options else {}
    spec = ComparisonSpec(methods=chosen, seeds=(0,), training=training, train_rows=32, eval_rows=20, **asked)
    curves, ends, facts, at = {}, {}, [], {}

    def emit(event):
        at[event.run] = event.step
        if event.event == "state":
            ends[event.run] = event
        else:
            timeless = event.model_dump(exclude={"seconds"} | ({"flops"} if event.event == "step" else set()))
            curves.setdefault(event.run, []).append(timeless)

    wanted = [run for run in run_specs("c", spec) if runs is None or run.run in runs]
    train_comparison(
        spec,
        wanted,
        folder=folder,
        emit=emit,
        notice=facts.append,
        stop=lambda run: stop(run, at.get(run, 0)),
        resume=resume,
        plan=plan,
        **options,
    )
    return curves, ends, facts


def states(ends):
    return {run: end.state for run, end in ends.items()}


def test_two_workers_give_the_curves_of_one_bit_for_bit(tmp_path):
    one, _, facts = execute(tmp_path / "one", asked="apart")
    assert next(fact["plan"] for fact in facts if "plan" in fact)["chosen"] == "given"
    plan = Plan(workers=2, shares=(("c-0", "c-2"), ("c-1", "c-3")))
    two = {}
    for share, runs in enumerate(plan.shares):
        found, ends, facts = execute(tmp_path / "two", runs=runs, plan=plan, share=share)
        assert set(states(ends)) == set(runs) and not [fact for fact in facts if "plan" in fact]
        two |= found
    assert two == one


def test_the_first_worker_chooses_and_trains_its_share_alone(tmp_path):
    offer = Offer(workers=2, cores=2)
    curves, ends, facts = execute(tmp_path, asked="workers", offer=offer)
    plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
    assert plan is not None and (plan.workers, plan.threads, plan.chosen) == (2, 1, "given")
    assert "c-0" in plan.shares[0] and sorted(sum(plan.shares, ())) == ["c-0", "c-1", "c-2", "c-3"]
    assert set(curves) == set(ends) == set(plan.shares[0])
    assert plan.memory_bytes["backbone"]


def test_a_measurement_leaves_no_trace_and_its_plan_gives_the_same_curves_again(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.training.choice.FEW_STEPS", 20)
    monkeypatch.setattr("peft_core.training.probe.SHARE_OF_WORK", 100.0)
    state = torch.get_rng_state()
    offer = Offer(workers=1, cores=1)
    curves, ends, facts = execute(tmp_path / "measured", offer=offer, asked="auto")
    assert set(states(ends).values()) == {RunState.FINISHED}
    plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
    assert plan is not None and plan.chosen == "measured" and plan.threads == 1
    assert set(plan.measured) == {"one worker, in turns with one thread", "one worker, in lockstep with one thread"}
    assert all(rate > 0 for rate in plan.measured.values()) and plan.measuring_seconds > 0
    assert torch.equal(state, torch.get_rng_state())
    assert execute(tmp_path / "given", plan=plan)[0] == curves
    assert [record["step"] for record in curves["c-0"] if record["event"] == "step"] == list(range(1, 9))


def test_every_way_that_can_be_had_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.training.choice.FEW_STEPS", 4)
    monkeypatch.setattr("peft_core.training.probe.SHARE_OF_WORK", 1000.0)
    methods = ("lora:rank=2", "lora:rank=4", "bitfit", "head")
    offer = Offer(workers=2, cores=2, start_seconds=0.5)
    _, ends, facts = execute(tmp_path, *methods, asked="auto", offer=offer, training={"steps": 4})
    plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
    assert plan is not None and plan.chosen == "measured" and len(plan.measured) == 6
    assert {name.split(",")[0] for name in plan.measured} == {"one worker", "2 workers"}
    assert plan.assumed["start_seconds"] == 0.5 and 0 <= plan.assumed["idle_cores"] <= 1
    assert set(ends) == set(plan.shares[0] if plan.shares else ("c-0", "c-1", "c-2", "c-3"))


def test_a_run_that_cannot_be_measured_fails_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.training.choice.FEW_STEPS", 1)
    monkeypatch.setattr("peft_core.training.choice.seconds_alone", _broken)
    _, ends, facts = execute(tmp_path, "head", "bitfit", asked="auto", offer=Offer(workers=1, cores=1))
    plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
    assert plan is not None and plan.chosen == "rule" and "could be measured" in plan.why
    assert set(states(ends).values()) == {RunState.FINISHED}


def _broken(copy):
    raise RunFailure("the loss became nan at step 1")


def test_short_comparisons_and_lone_processes_follow_a_rule(tmp_path):
    for offer in (None, Offer(workers=2, cores=2)):
        _, _, facts = execute(tmp_path / str(offer is None), "head", "bitfit", asked="auto", offer=offer)
        plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
        assert plan is not None and (plan.chosen, plan.execution, plan.workers, plan.threads) == ("rule", "apart", 1, 1)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("lockstep", "lockstep, and no two of its runs can advance together. By itself: full trains the backbone's"),
        ("workers", "several workers, and there is room for one."),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path, asked, why):
    _, ends, facts = execute(tmp_path, "full", "head", asked=asked, offer=Offer(workers=1, cores=1))
    plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
    assert plan is not None and (plan.execution, plan.workers, plan.groups) == ("apart", 1, ())
    assert f"the comparison asks for {why}" in plan.why
    assert set(states(ends).values()) == {RunState.FINISHED}


def test_in_lockstep_all_finish_and_the_backbones_own_weights_train_alone(tmp_path):
    curves, ends, facts = execute(tmp_path, asked="lockstep")
    assert set(states(ends).values()) == {RunState.FINISHED}
    plan = Plan.recorded(next(fact["plan"] for fact in facts if "plan" in fact))
    assert plan is not None and plan.execution == "lockstep" and plan.groups == (GROUP,)
    assert plan.why.endswith("By itself: full trains the backbone's own weights.")
    alone, _, _ = execute(tmp_path / "alone", asked="apart")
    for run, records in alone.items():
        kinds = [(record["event"], record["step"]) for record in records]
        assert [(record["event"], record["step"]) for record in curves[run]] == kinds
        for ours, theirs in zip(curves[run], records, strict=True):
            if ours["event"] == "step":
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3, abs=1e-5)
    result = ends["c-0"].result
    assert result.peak_memory_bytes and result.seconds > 0 and result.steps == 8
    assert alone["c-2"] == curves["c-2"]


def test_a_group_of_which_one_was_cancelled_and_resumed_follows_the_same_curves(tmp_path):
    whole, _, _ = execute(tmp_path / "whole", plan=LOCKSTEP)
    first, ends, _ = execute(tmp_path / "broken", plan=LOCKSTEP, stop=lambda run, step: run == "c-1" and step == 5)
    assert states(ends) == dict.fromkeys(("c-0", "c-2", "c-3"), RunState.FINISHED) | {"c-1": RunState.CANCELLED}
    assert {run: records for run, records in first.items() if run != "c-1"} == {
        run: records for run, records in whole.items() if run != "c-1"
    }
    rest, ends, _ = execute(tmp_path / "broken", plan=LOCKSTEP, runs=["c-1"], resume=True)
    assert states(ends) == {"c-1": RunState.FINISHED} and set(rest) == {"c-1"}
    assert first["c-1"] + rest["c-1"] == whole["c-1"]


def test_a_group_that_was_stopped_altogether_goes_on_bit_for_bit(tmp_path):
    whole, _, _ = execute(tmp_path / "whole", plan=LOCKSTEP)
    first, ends, _ = execute(tmp_path / "broken", plan=LOCKSTEP, stop=lambda run, step: step >= 3)
    assert set(states(ends).values()) == {RunState.CANCELLED}
    assert {ends[run].step for run in GROUP} == {3}
    rest, _, _ = execute(tmp_path / "broken", plan=LOCKSTEP, resume=True)
    assert {run: first[run] + rest[run] for run in whole} == whole


def test_a_failure_in_a_group_leaves_the_others_as_they_would_be(tmp_path, monkeypatch):
    whole, _, _ = execute(tmp_path / "whole", plan=LOCKSTEP)
    real = turns.Together.step

    def poisoned(self, live):
        run = next(run for run in self.runs if run.spec.run == "c-1")
        if run.step == 3:
            next(iter(run.parameters.values())).data.fill_(float("inf"))
        return real(self, live)

    monkeypatch.setattr(turns.Together, "step", poisoned)
    curves, ends, _ = execute(tmp_path / "broken", plan=LOCKSTEP)
    assert states(ends) == dict.fromkeys(("c-0", "c-2", "c-3"), RunState.FINISHED) | {"c-1": RunState.FAILED}
    assert ends["c-1"].error.startswith("the loss became nan at step 4")
    assert {run: curves[run] for run in ("c-0", "c-2", "c-3")} == {run: whole[run] for run in ("c-0", "c-2", "c-3")}


def test_a_cancelled_run_that_cannot_be_saved_fails_by_itself(tmp_path, monkeypatch):
    def full(run):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Run, "save", full)
    _, ends, _ = execute(tmp_path, plan=LOCKSTEP, stop=lambda run, step: run == "c-1" and step == 3)
    assert states(ends) == dict.fromkeys(("c-0", "c-2", "c-3"), RunState.FINISHED) | {"c-1": RunState.FAILED}
    assert ends["c-1"].error.startswith("disk full")


def test_what_breaks_the_whole_pass_fails_those_that_took_it(tmp_path, monkeypatch):
    def broken(self, live):
        raise MemoryError

    monkeypatch.setattr(turns.Together, "step", broken)
    _, ends, _ = execute(tmp_path, plan=LOCKSTEP)
    assert states(ends) == dict.fromkeys(GROUP, RunState.FAILED) | {"c-2": RunState.FINISHED}
    assert ends["c-0"].error.startswith("out of memory")


def saved(folder):
    return {run: sorted(file.name for file in (folder / run / "checkpoints").iterdir()) for run in (*GROUP, "c-2")}


def test_all_of_a_group_save_at_one_step(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.training.loop.CHECKPOINT_SECONDS", 0.0)
    execute(tmp_path, plan=LOCKSTEP, training={"steps": 12})
    assert len({str(saved(tmp_path)[run]) for run in GROUP}) == 1


def test_between_two_evaluations_checkpoints_are_saved_too(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.training.loop.LATEST_SECONDS", 0.0)
    execute(tmp_path, plan=LOCKSTEP, training={"steps": 7, "eval_every": 1_000_000})
    names = ["step-000000005.safetensors", "step-000000006.safetensors"]
    assert saved(tmp_path) == dict.fromkeys((*GROUP, "c-2"), names)


def test_a_group_too_large_for_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.training.memory.available_bytes", lambda device: 2**20)
    with pytest.raises(InputError, match="batch_size"):
        execute(tmp_path, asked="lockstep")


def test_a_plan_for_more_cores_than_there_are_is_kept_and_said(tmp_path):
    plan = Plan(workers=2, shares=(("c-0",), ("c-1",)))
    _, ends, facts = execute(tmp_path, "head", "bitfit", runs=["c-0"], plan=plan, offer=Offer(workers=1, cores=1))
    assert states(ends) == {"c-0": RunState.FINISHED}
    assert [fact["message"] for fact in facts if "message" in fact] == [cohort.plans.fewer_cores(plan, 1)]
