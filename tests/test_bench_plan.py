"""`bench --what plan`: what it compares, its peer, and its figures from given ones."""

from __future__ import annotations

import argparse

import pytest

from peft_core.cli import main
from peft_core.commands import bench_plan
from peft_core.commands._trainer import Peer
from peft_core.records import InputError, run_specs


def options(**given):
    return argparse.Namespace(**{"runs": 8, "steps": 2, "rank": 4, "rows": 4, "model": None} | given)


def test_the_runs_are_of_methods_that_the_peer_has():
    spec, configs = bench_plan.compared(options())
    made = configs()
    assert len(run_specs("c", spec)) == 8 and set(made) == {str(method) for method in spec.methods}
    sizes = [(config.peft_type, getattr(config, "r", None)) for config in made.values()]
    assert [size for _, size in sizes] == [4, 4, 8, None]
    assert spec.training.eval_every == spec.training.steps == 2


@pytest.mark.parametrize("runs", [3, 6, 0])
def test_a_number_of_runs_that_does_not_come_out_is_refused(runs, capsys):
    with pytest.raises(InputError, match="multiple of 4"):
        bench_plan.compared(options(runs=runs))
    assert main(["bench", "--what", "plan", "--runs", str(runs)]) == 2
    assert "runs is" in capsys.readouterr().err


def test_the_peer_trains_every_run_and_is_scored_with_the_same_metric(capsys):
    spec, configs = bench_plan.compared(options(runs=4))
    spec = spec.model_copy(update={"train_rows": 16, "eval_rows": 12})
    score = Peer(spec, configs()).score()
    assert -1 <= score <= 1
    assert capsys.readouterr().out == ""


def test_ratios_are_of_pairs_and_peaks_of_all_workers():
    reference = [{"seconds": 10.0, "score": 0.5}, {"seconds": 20.0, "score": 0.5}]
    ours = [{"seconds": 5.0, "score": 0.4, "peak": 3}, {"seconds": 8.0, "score": 0.6, "peak": 7}]
    row = bench_plan._row("ours", ours, reference)
    assert row["ratio"] == pytest.approx(0.45) and row["times_sooner"] == pytest.approx(2.25)
    assert (row["seconds_median"], row["score_mean"], row["peak_bytes"]) == (6.5, 0.5, 7)
