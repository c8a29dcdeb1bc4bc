"""The real engine in a thread: damaged files, losses that are no numbers, cancelling, a full disk, equal curves."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from peft_core.cli import main
from peft_core.records import START, MethodSpec, RunState
from peft_core.report.html import report_html
from peft_core.report.results import results_document
from peft_core.runs import Limits, Supervisor
from peft_core.training.checkpoint import read_checkpoint
from tests.reliability.support import curve, fill_but, real, small_disk
from tests.runs.support import reached, states, times_in_state, until
from ui.service import payload

pytestmark = pytest.mark.reliability
DROPPED = "lora:rank=4,dropout=0.1"
"""Draws at every step, so that a curve is the same only where the generators are."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def supervisor(home):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with Supervisor(home, executor="thread") as made:
        yield made
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def alone(supervisor) -> str:
    """A comparison of one run that has finished."""
    made = supervisor.submit(real(DROPPED, plan="apart"))
    assert supervisor.wait(made, 90)
    assert states(supervisor.view(made)) == [RunState.FINISHED]
    return made


def flip(file: Path, at: float) -> None:
    """Turn one bit over. at: where, as a share of the file."""
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 4
    file.write_bytes(content)


def checkpoints(supervisor: Supervisor, comparison_id: str) -> list[Path]:
    run = supervisor.view(comparison_id).runs[0].run
    return sorted((supervisor.folder(run) / "checkpoints").glob("*.safetensors"))


def stopped_twice(supervisor: Supervisor) -> str:
    """A comparison that was cancelled, resumed and cancelled again: it has two checkpoints."""
    made = supervisor.submit(real(DROPPED, plan="apart"))
    for step in (5, 12):
        reached(supervisor, made, step, 60)
        supervisor.cancel(made)
        assert supervisor.wait(made, 10)
        if step == 5:
            supervisor.resume(made)
    assert states(supervisor.view(made)) == [RunState.CANCELLED]
    return made


def test_a_flipped_bit_costs_one_checkpoint_which_is_said_and_the_curve_is_the_same(supervisor, alone):
    made = stopped_twice(supervisor)
    before, newest = checkpoints(supervisor, made)
    flip(newest, 0.5)
    supervisor.resume(made)
    assert supervisor.wait(made, 90)
    view = supervisor.view(made)
    assert view.comparison.message == (
        f"checkpoint {newest.name} is damaged: its checksum does not fit; the one before it was used"
    )
    assert read_checkpoint(before).step < int(newest.stem.split("-")[1])
    assert states(view) == [RunState.FINISHED] and curve(view) == curve(supervisor.view(alone))


def test_where_no_checkpoint_is_whole_the_run_begins_anew_and_says_so(supervisor, alone):
    made = stopped_twice(supervisor)
    first, second = checkpoints(supervisor, made)
    first.write_bytes(first.read_bytes()[:-1000])
    flip(second, 0.9)
    supervisor.resume(made)
    assert supervisor.wait(made, 90)
    view = supervisor.view(made)
    assert view.comparison.message.startswith(f"checkpoint {first.name} is damaged: ")
    assert view.comparison.message.endswith("there is none before it: it began anew")
    assert states(view) == [RunState.FINISHED] and curve(view) == curve(supervisor.view(alone))


@pytest.mark.parametrize("name", ["adapter.safetensors", "head.safetensors", "adapter.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_adapter_is_named_wherever_it_is_used(supervisor, alone, home, monkeypatch, capsys, name, damage):
    row = supervisor.view(alone).runs[0]
    file = supervisor.folder(row.run) / "adapter" / name
    whole = file.read_bytes()
    if damage == "flipped":
        flip(file, 0.97)
    else:
        file.write_bytes(whole[:-7])
    monkeypatch.setenv("RANKLAB_HOME", str(home))
    try:
        for out, kind in (("a", "native"), ("b", "peft")):
            assert main(["export", row.run, "--format", kind, "--to", str(home / out)]) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and f"its file {name} is damaged: the checksum does not fit" in said
            assert not (home / out).exists()
        begun = real(plan="apart").model_copy(
            update={"methods": (MethodSpec(id="lora", options={START: row.run, "rank": 4, "dropout": 0.1}),)}
        )
        made = supervisor.submit(begun)
        assert supervisor.wait(made, 60)
        assert f"its file {name} is damaged" in supervisor.view(made).runs[0].error
    finally:
        file.write_bytes(whole)


def test_the_same_seed_gives_the_same_curve_alone_and_beside_others(supervisor, alone):
    beside = supervisor.submit(real("bitfit", DROPPED, "full", plan="apart"))
    assert supervisor.wait(beside, 90)
    found = {key[1:]: told for key, told in curve(supervisor.view(beside)).items() if key[0] == "1"}
    wanted = {key[1:]: told for key, told in curve(supervisor.view(alone)).items()}
    assert len(wanted) > 40 and found == wanted


def test_a_loss_that_is_no_number_ends_the_run_and_the_last_finite_checkpoint_stays(supervisor):
    training = {"steps": 400, "batch_size": 40, "warmup": 0.95, "learning_rate": 10, "eval_every": 400}
    made = supervisor.submit(real("lora:rank=4,alpha=1e6", training=training))
    reached(supervisor, made, 3, 60)
    supervisor.cancel(made)  # which leaves a checkpoint, as an evaluation every five seconds does
    assert supervisor.wait(made, 10)
    assert states(supervisor.view(made)) == [RunState.CANCELLED]
    supervisor.resume(made)
    assert supervisor.wait(made, 90)
    view = supervisor.view(made)
    assert states(view) == [RunState.FAILED]
    step = view.runs[0].step
    assert f" at step {step + 1}; a smaller learning rate may help" in view.runs[0].error
    assert view.runs[0].error.startswith(("the gradient became ", "the loss became "))
    (kept,) = checkpoints(supervisor, made)
    found = read_checkpoint(kept)
    assert 3 <= found.step < step and all(torch.isfinite(value).all() for value in found.tensors.values())
    for told in (view.model_dump(mode="json"), results_document(view), payload(view, 0)):
        json.dumps(told, allow_nan=False)
    assert payload(view, 0)["runs"][0]["error"] == view.runs[0].error
    assert view.runs[0].error in report_html(view)


def ends_of(supervisor: Supervisor, comparison_id: str) -> list[dict[str, int]]:
    view = supervisor.view(comparison_id)
    found = [times_in_state(view, number) for number in range(len(view.runs))]
    return [{name: times for name, times in counts.items() if RunState(name).ended} for counts in found]


def cancelled(supervisor: Supervisor, comparison_id: str) -> None:
    """Cancel, and see it acknowledged within a second and done within ten."""
    started = time.monotonic()
    assert supervisor.cancel(comparison_id)
    wanted = {RunState.STOPPING, RunState.CANCELLED}
    assert set(states(supervisor.view(comparison_id))) <= wanted and time.monotonic() - started < 1
    assert supervisor.wait(comparison_id, 10)
    assert ends_of(supervisor, comparison_id) == [{"cancelled": 1}] * len(supervisor.view(comparison_id).runs)


def test_cancel_in_the_queue_while_rows_are_tokenised_in_an_evaluation_and_in_a_step(supervisor, home):
    long = real("lora:rank=4", "bitfit", train_rows=20_000, eval_rows=4000, training={"eval_every": 40})
    made, waiting = supervisor.submit(long), supervisor.submit(long)
    until(lambda: "device" in supervisor.view(made).comparison.environment, 30)
    assert supervisor.view(waiting).comparison.queue_place == 1
    cancelled(supervisor, waiting)
    assert supervisor.view(made).comparison.baseline_score is None, "its rows are still being encoded"
    cancelled(supervisor, made)

    made = supervisor.submit(long.model_copy(update={"train_rows": 200}))
    until(lambda: states(supervisor.view(made)) == [RunState.RUNNING] * 2, 30)
    assert not [event for event in supervisor.view(made).events if event["event"] == "eval"]
    cancelled(supervisor, made)

    made = supervisor.submit(real("lora:rank=4", "bitfit", training={"steps": 5000, "eval_every": 5000}))
    reached(supervisor, made, 3, 30)
    cancelled(supervisor, made)


def test_cancel_while_a_run_ends_and_its_adapter_is_written(supervisor):
    methods = ("full", "lora:rank=4", "bitfit", "head")
    for wait in (0.0, 0.01, 0.03, 0.06):
        made = supervisor.submit(real(*methods, plan="apart", training={"steps": 2}, train_rows=16, eval_rows=8))
        until(lambda made=made: supervisor.view(made).runs[0].step == 2, 30)
        time.sleep(wait)
        supervisor.cancel(made)
        assert supervisor.wait(made, 10)
        assert all(ends in ({"cancelled": 1}, {"finished": 1}) for ends in ends_of(supervisor, made))
        view = supervisor.view(made)
        whole = {"adapter.safetensors", "head.safetensors", "adapter.json", "tasks.json", "SHA256SUMS"}
        for run in view.runs:
            if run.state is RunState.FINISHED:
                assert {file.name for file in (supervisor.folder(run.run) / "adapter").iterdir()} == whole


def test_a_full_disk_fails_the_run_that_writes_and_the_ones_beside_it_live(tmp_path):
    with (
        small_disk(tmp_path / "small", 48) as home,
        Supervisor(home, executor="thread", limits=Limits(free=2**20)) as supervisor,
    ):
        made = supervisor.submit(real("full", "bitfit", plan="apart", training={"steps": 30}))
        reached(supervisor, made, 3, 60)
        fill_but(home / "filler", 2 * 2**20)  # room for figures, not for 4 MB of weights
        elsewhere = tmp_path / "elsewhere"
        with Supervisor(elsewhere, executor="thread") as other:
            another = other.submit(real("head", training={"steps": 5}))
            assert other.wait(another, 60) and states(other.view(another)) == [RunState.FINISHED]
        assert supervisor.wait(made, 90)
        view = supervisor.view(made)
        assert states(view) == [RunState.FAILED, RunState.FINISHED]
        assert view.runs[0].error.startswith("disk full; delete runs that are not needed any more")
        assert not list((supervisor.folder(view.runs[0].run) / "adapter").glob(".*")), "no half file is left"
        (home / "filler").unlink()
        supervisor.resume(made)
        assert supervisor.wait(made, 90)
        assert states(supervisor.view(made)) == [RunState.FINISHED] * 2
