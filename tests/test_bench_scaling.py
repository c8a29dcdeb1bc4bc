"""The benchmark of growth: its straight lines, its run on a miniature, and that table and chart are its JSON's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts import bench_scaling
from scripts.benchmarking.chart import panels
from scripts.benchmarking.runs import apart, in_lockstep, made_up_runs, random_roberta
from scripts.benchmarking.timing import interleaved, median_ratio, straight_line

KEPT = Path(__file__).parents[1] / "assets" / "benchmarks" / "scaling.json"


def test_a_line_and_what_it_leaves_over():
    exact = straight_line([1, 2, 4], [5, 7, 11])
    assert (exact["intercept"], exact["slope"], exact["r2"]) == pytest.approx((3, 2, 1))
    bent = straight_line([0, 1, 2], [0, 0, 3])
    assert bent["residuals"] == pytest.approx([0.5, -1, 0.5]) and bent["r2"] == pytest.approx(1 - 1.5 / 6)
    assert straight_line([1, 2, 3], [4, 4, 4])["r2"] == 1
    with pytest.raises(ValueError, match="2 points"):
        straight_line([1, 2], [1, 2])


def test_variants_are_timed_in_turns():
    order: list[str] = []
    variants = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = interleaved(variants, 2, block=2)
    assert "".join(order[-8:]) == "aabbaabb" and [len(times[name]) for name in "ab"] == [2, 2]
    assert median_ratio({"a": [2, 4, 9], "b": [1, 1, 3]}, "a", "b") == 3


def test_the_command_on_a_miniature(tmp_path, monkeypatch):
    out = tmp_path / "scaling.json"
    monkeypatch.setattr(bench_scaling, "AXES", {axis: (t, v[:3]) for axis, (t, v) in bench_scaling.AXES.items()})
    monkeypatch.setattr(sys, "argv", ["bench_scaling.py", "--tiny", "--repeats", "1", "--out", str(out)])
    bench_scaling.main()
    document = json.loads(out.read_text())
    asked = set(bench_scaling.AXES) - (set() if in_lockstep_is_there() else {"lockstep"})
    assert {entry["axis"] for entry in document["axes"]} == asked
    assert out.with_suffix(".md").read_text() == bench_scaling.page(document)
    chart = ElementTree.parse(out.with_suffix(".svg")).getroot()
    assert len(chart.findall(".//{*}circle")) == sum(len(entry["x"]) for entry in document["axes"])


def in_lockstep_is_there() -> bool:
    runs = made_up_runs(random_roberta(vocab_size=500, **bench_scaling.TINY), ["lora:rank=2"] * 2, 2, 4)
    return in_lockstep(runs) is not None


def test_lockstep_and_one_after_another_take_the_same_steps():
    def made():
        return made_up_runs(random_roberta(vocab_size=500, **bench_scaling.TINY), ["lora:rank=2"] * 2, 4, 6)

    one, folded = apart(made()), in_lockstep(made())
    if folded is None:
        pytest.skip("the engine does not fold runs yet")
    for _ in range(3):
        assert folded() == pytest.approx(one(), abs=1e-4)


@pytest.mark.skipif(not KEPT.exists(), reason="not measured")
def test_table_and_chart_in_the_repository_are_the_json_s():
    document = json.loads(KEPT.read_text(encoding="utf-8"))
    assert KEPT.with_suffix(".md").read_text(encoding="utf-8") == bench_scaling.page(document)
    assert KEPT.with_suffix(".svg").read_text(encoding="utf-8") == panels(document["axes"])
    for entry in document["axes"]:
        line = straight_line(entry["x"], entry["step_ms_median"])
        assert line["residuals"] == pytest.approx(entry["line"]["residuals"]) and len(entry["x"]) >= 4
