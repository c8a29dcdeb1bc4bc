"""What a run reports beside its score: ranks, storage, time, memory, energy, losses."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from peft_core.methods import list_methods
from peft_core.metrics.storage import stored_bits
from peft_core.records import RunResult
from peft_core.report.results import RESULT_KEYS
from peft_core.training import evaluate, meter
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.loop import train
from peft_core.training.meter import Meter, host_peak_bytes
from peft_core.training.result import result_of
from peft_core.training.totals import TIMED_FROM, Totals
from tests.report.sample import sample_result
from tests.training.test_loop import make_run
from tests.training.test_memory import options_of


def ranks_of(run):
    return [record for record in train(run) if record.event == "rank"]


def finished(method: str, folder, **training) -> tuple:
    run = make_run(method, folder=folder, **{"steps": 8, "eval_every": 4} | training)
    with run.meter.turn(run.totals):
        records = list(train(run))
    return run, records, result_of(run, 0.5)


# --- rank ---


def test_the_spectrum_comes_with_the_last_evaluation():
    records = ranks_of(make_run("lora:rank=4"))
    assert [record.layers[0].spectrum is not None for record in records] == [False] * 4 + [True]
    for layer in records[-1].layers:
        assert len(layer.spectrum) == 4 and list(layer.spectrum) == sorted(layer.spectrum, reverse=True)
        assert layer.norm == pytest.approx(sum(value**2 for value in layer.spectrum) ** 0.5, rel=1e-5)
        squares = [value**2 for value in layer.spectrum]
        distance = sum((square - 1) ** 2 for square in squares) + 32 - 4
        assert layer.orthogonality == pytest.approx(distance, rel=1e-5)


def test_with_the_best_selected_its_spectrum_is_there(tmp_path):
    run, records, result = finished(
        "lora:rank=4", tmp_path, steps=30, eval_every=5, selection="best", learning_rate=0.05
    )
    spectra = [record for record in records if record.event == "rank" and record.layers[0].spectrum is not None]
    chosen = next(record for record in spectra if record.step == result.selected_step)
    assert result.rank == evaluate.summarize_ranks(chosen.layers)
    again = evaluate.layer_ranks(run.attached)[1]
    assert [layer.effective for layer in again] == [layer.effective for layer in chosen.layers]


def test_tolerance_and_interval_are_options():
    loose = ranks_of(make_run("lora:rank=4", rank_tolerance=0.9, rank_every=2))
    assert [record.step for record in loose] == [0, 10, 20]
    for layer in loose[-1].layers:
        assert layer.numerical == sum(value > 0.9 * layer.spectrum[0] for value in layer.spectrum) < 4
        assert layer.tolerance == 0.9
    assert evaluate.summarize_ranks(loose[-1].layers)["tolerance"] == 0.9
    assert [record.step for record in ranks_of(make_run("lora:rank=4", rank_every=3))] == [0, 15, 20]
    strict = ranks_of(make_run("lora:rank=4"))[-1].layers[0]
    assert strict.numerical == 4 and strict.tolerance == 32 * torch.finfo(torch.float64).eps


@pytest.mark.parametrize("method", [method.id for method in list_methods()])
def test_every_method_with_an_update_has_ranks(method):
    records = ranks_of(make_run(options_of(method), steps=16, eval_every=16))
    if method in ("head", "vpt_deep"):
        assert not records
        return
    kinds = {"adapter": "linear_map", "prefix": "linear_map"}
    family = next(entry.family for entry in list_methods() if entry.id == method)
    what = "bias" if method == "bitfit" else kinds.get(family, "delta")
    last = records[-1]
    assert last.what == what and last.layers
    for layer in last.layers:
        assert 1 <= layer.numerical <= layer.bound and 1 <= layer.stable <= layer.effective**2 and layer.spectrum
        assert (layer.orthogonality is not None) == (what == "delta")


def test_bitfit_changes_one_column_of_a_map_and_its_bias():
    first, *_, last = ranks_of(make_run("bitfit"))
    assert {layer.numerical for layer in first.layers} == {0}
    assert {(layer.numerical, layer.effective, layer.stable, layer.bound) for layer in last.layers} == {(1, 1, 1, 1)}
    assert len(last.layers) == 12


def test_large_dense_updates_are_decomposed_at_the_end_alone(monkeypatch):
    assert [record.step for record in ranks_of(make_run("full"))] == [0, 5, 10, 15, 20]
    monkeypatch.setattr(evaluate, "DENSE_WORK", 1e5)
    assert [record.step for record in ranks_of(make_run("full"))] == [20]
    assert [record.step for record in ranks_of(make_run("lora:rank=4"))] == [0, 5, 10, 15, 20]


# --- storage, time, losses ---


def test_a_result_has_every_figure_of_its_run(tmp_path):
    run, records, result = finished("capaboost_lora:rank=4,d=2", tmp_path)
    adapter = [tmp_path / "adapter" / name for name in ("adapter.safetensors", "adapter.json")]
    assert result.stored_bytes == sum(path.stat().st_size for path in adapter)
    assert result.stored_parameters == result.trainable and result.inference_parameters == 0
    percent = 100 * stored_bits(run.attached.counts) / (32 * run.attached.backbone.parameter_count())
    assert result.bit_level_storage_percent == percent
    steps = [record for record in records if record.event == "step"]
    assert result.run_flops == steps[-1].flops and result.example_flops == steps[-1].flops / 64
    assert result.run_adapter_flops_executed == steps[-1].adapter_flops_executed
    assert result.example_adapter_flops_nominal == steps[-1].adapter_flops_nominal / 64
    assert result.flops_executed_vs_lora == 2 and result.flops_vs_lora == pytest.approx(1, abs=0.01)
    assert result.train_loss == pytest.approx(sum(step.loss for step in steps[4:]) / 4) and result.train_penalty == 0
    assert result.eval_loss == [record for record in records if record.event == "eval"][-1].loss
    assert result.peak_host_bytes == result.peak_memory_bytes > 2**20 and result.peak_device_bytes is None
    assert result.energy_joules is None and result.device_name and result.rank_of == "delta"
    assert 0 < result.data_wait_share < 0.5 and result.steps_left_out == TIMED_FROM
    assert result.examples_per_second > 0 and set(RESULT_KEYS) == set(RunResult.model_fields) - {"resampled"}


def test_task_loss_stands_apart_from_the_penalty(tmp_path):
    plain, penalized = (finished(f"{name}:rank=4", tmp_path / name)[1] for name in ("lora", "r_lora"))
    first, other = (next(record for record in records if record.event == "step") for records in (plain, penalized))
    assert other.loss == first.loss and first.penalty is None and other.penalty > 0
    at_start = [next(record for record in records if record.event == "eval").loss for records in (plain, penalized)]
    assert at_start[0] == at_start[1]


def test_methods_without_a_size_have_no_factor_of_lora(tmp_path):
    result = finished("bitfit", tmp_path)[2]
    assert result.flops_executed_vs_lora is None and result.run_flops > result.run_adapter_flops_executed == 0
    assert result.inference_parameters == 0 < result.stored_parameters


def test_an_adapter_stays_beside_the_backbone(tmp_path):
    result = finished("adapter_pfeiffer:bottleneck=4", tmp_path)[2]
    assert result.inference_parameters == result.stored_parameters == result.trainable


def test_results_of_before_still_load():
    names = ("run_flops", "device_name", "eval_loss", "rank_of")
    older = sample_result("lora:rank=4", 0, 0.5, 10).model_dump(exclude=set(names))
    loaded = RunResult.model_validate_json(json.dumps(older))
    assert [getattr(loaded, name) for name in names] == [None] * 4


def test_sums_go_on_where_they_were_after_a_resume(tmp_path):
    whole = make_run("r_lora:rank=4")
    list(train(whole))
    run = make_run("r_lora:rank=4", folder=tmp_path)
    records = train(run)
    for _ in range(13):
        next(records)
    run.save()
    before = run.totals
    again = make_run("r_lora:rank=4", folder=tmp_path)
    again.restore(latest_checkpoint(tmp_path / "checkpoints")[0])
    assert again.totals == before
    list(train(again))
    for name in ("examples", "flops", "module_flops", "nominal_flops", "passes", "steps", "early_examples", "losses"):
        assert getattr(again.totals, name) == getattr(whole.totals, name), name
    assert len(again.totals.step_times) == 20 and again.totals.seconds > before.seconds
    assert again.eval_losses == whole.eval_losses


def test_first_steps_are_left_out_of_times():
    totals = Totals()
    for seconds in (9.0, 9.0, 9.0, 9.0, 9.0, 0.1, 0.3, 0.2):
        totals.add_step(seconds, seconds / 4, 8)
    assert totals.left_out == TIMED_FROM == 5 and totals.step_ms_median == pytest.approx(200)
    assert totals.examples_per_second == pytest.approx(24 / 0.6) and totals.data_wait_share == pytest.approx(0.25)
    short = Totals()
    short.add_step(0.5, 0.0, 8)
    assert (short.left_out, short.step_ms_median, short.examples_per_second) == (0, 500, 16)
    assert Totals().step_ms_median is None and Totals().examples_per_second is None


def test_a_long_run_that_is_resumed_leaves_no_more_out():
    totals = Totals()
    for _ in range(520):
        totals.add_step(1.0, 0.0, 1)
    resumed = Totals.of(json.loads(json.dumps(totals.state())))
    assert len(resumed.step_times) == 500 and resumed.steps == 520
    resumed.add_step(1.0, 0.0, 1)
    assert resumed.step_ms_median == 1000 and resumed.examples_per_second == pytest.approx(1.0)


# --- memory and energy ---


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux forgets a peak")
def test_a_peak_is_that_of_the_run_s_turns():
    block = torch.ones(50_000_000)
    del block
    totals, cpu = Totals(), Meter(torch.device("cpu"))
    with cpu.turn(totals):
        pass
    idle = totals.host_peak
    with cpu.turn(totals):
        block = torch.ones(50_000_000)
        del block
    assert totals.host_peak - idle > 150_000_000
    with cpu.turn(totals):
        assert host_peak_bytes() < totals.host_peak


class Joules(types.ModuleType):
    """A stand-in for nvidia-ml-py: a device that has used 7 J more at every question."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts: bool = True) -> None:
        super().__init__("pynvml")
        self.used, self.counts = 0, counts

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802 (the library's name)
        if not self.counts:
            raise self.NVMLError("not supported")
        self.used += 7000
        return self.used


def test_energy_is_what_the_device_counts_in_the_turns(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Joules())
    monkeypatch.setattr(meter, "_nvml_handle", lambda device: "a device")
    device = torch.device("cuda")
    assert [meter.read_joules(device) for _ in range(2)] == [7, 14]
    assert meter.read_joules(torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "pynvml", Joules(counts=False))
    assert meter.read_joules(device) is None


def test_energy_of_turns_adds_up_and_a_checkpoint_has_it(monkeypatch):
    found = iter((10.0, 13.0, 20.0, 100.0, 101.0))
    monkeypatch.setattr(meter, "read_joules", lambda device: next(found))
    totals, one = Totals(), Meter(torch.device("cpu"))
    with one.turn(totals):
        one.add_to(totals)
        assert totals.joules == 3
    assert totals.joules == 10
    one.add_to(totals)
    with one.turn(totals):
        pass
    assert totals.joules == 11
