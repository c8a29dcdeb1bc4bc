"""The README's table of speed: exactly what its command makes of the files that are there, peers ahead included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.performance_table import BEGIN, END, PARTS, read, rewritten, section

ROOT = Path(__file__).parents[1]
WHERE = {"device": "cpu", "device_name": "A Machine", "threads": 1, "cores": 2}
WHERE |= {"versions": {"torch": "9.8", "transformers": "7.6", "peft": "5.4"}}


def step_rows(ours: float) -> list[dict]:
    peers = [("peft LoRA rank=32", 100.0, 1.0), ("peft LoRA rank=64", 110.0, 1.1)]
    rows = [*peers, ("capaboost_lora:rank=32,d=2", ours, ours / 100)]
    return [{"label": label, "step_ms_median": ms, "step_vs_reference": ratio} for label, ms, ratio in rows]


def documents(ours: float = 102.0) -> dict[str, dict]:
    made = {
        "step": {"model": "wide", "tokens": 64, "reference": "peft LoRA rank=32", "rows": step_rows(ours)},
        "memory": {
            "model": "wide",
            "plain_over_ours": {"d": 4, "cost_above_floor": 2.5, "adapter_bytes": 4.0, "optimizer_bytes": 4.0},
            "rows": [
                {"label": "peft LoRA rank=32", "peak_bytes": 6 * 2**20, "peak_vs_reference": 1.0},
                {"label": "lora", "peak_bytes": 3 * 2**20, "peak_vs_reference": 0.5, "ms_above_floor": 1.25},
                {"label": "plain copies d=4", "peak_bytes": 9 * 2**20, "peak_vs_reference": 1.5},
            ],
        },
        "plan": {"rows": [{"label": "chosen", "seconds_median": 12.34, "ratio": 1.0, "score": 0.8}]},
        "rank": {
            "shape": [8, 8],
            "svd_over_factors": 68.4,
            "share_of_training": 0.001,
            "rows": [{"label": "from its factors", "ms_median": 1.256}, {"label": "training step", "ms_median": 9.0}],
        },
        "scaling": {
            "model": {"hidden_size": 256},
            "axes": [{"title": "rank", "line": {"intercept": 80.0, "slope": 0.25, "r2": 0.991}}],
        },
        "page": {
            "browser": "150.0",
            "left_out": {"measurements": ["paint"], "reason": "no reason"},
            "rows": [
                {
                    "measurement": "rows",
                    "bar": 1,
                    "median": 0.5,
                    "worst": 1.25,
                    "unit": "s",
                    "holds": True,
                    "repeats": 5,
                },
                {
                    "measurement": "fit",
                    "bar": 3,
                    "median": 4.0,
                    "worst": 5.0,
                    "unit": "s",
                    "holds": False,
                    "repeats": 2,
                },
                {"measurement": "cold", "bar": None, "median": 7, "worst": 7, "unit": "s", "holds": None, "repeats": 1},
            ],
        },
        "app": {
            "viewers": 50,
            "duration": 600,
            "rows": [
                {"measurement": "poll, p95", "bar": 250, "value": 101.26, "unit": "ms", "holds": True},
                {"measurement": "growth", "bar": 5, "value": 6.5, "unit": "%", "holds": False},
                {"measurement": "polls", "bar": None, "value": 68.44, "unit": "a second", "holds": None},
            ],
        },
        "gpu": {
            "dry_run": False,
            "peak": {"tflops": 700.0},
            "steps vit-b16": {
                "lines": [
                    {"label": "PEFT LoRA rank=32", "step_ms_median": 20.0, "step_vs_reference": 1.0},
                    {"label": "ours", "step_ms_median": 18.0, "step_vs_reference": 0.9, "fraction_of_peak": 0.25},
                ]
            },
            "lockstep vit-b16": {
                "runs": 8,
                "lines": [{"label": "in lockstep", "run_steps_per_second": 321.0, "vs_trainer": 6.0}],
            },
        },
    }
    made["memory_rank_32"] = made["memory"]
    return {name: document | {"environment": WHERE} for name, document in made.items()}


def test_the_readme_holds_what_the_command_makes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert rewritten(readme, read(ROOT / "assets" / "benchmarks")) == readme


def test_every_file_has_its_lines_with_machine_and_versions():
    text = section(documents())
    for line in (
        "| capaboost_lora:rank=32,d=2 | 102 ms | 1.020 |",
        "| lora | 3.0 MiB, 1.2 ms above the floor | 0.500 |",
        "| plain copies d=4 | 9.0 MiB | 1.500 |",
        "| chosen | 12.3 s | 1.000 |",
        "| from its factors | 1.26 ms |",
        "| rank | 80.0 ms + 0.25 ms each, R² 0.991 |",
        "| rows, 5 times | 0.5 s, at worst 1.25; bar 1 s holds |",
        "| fit, 2 times | 4 s, at worst 5; bar 3 s **does not hold** |",
        "| cold, once | 7 s, at worst 7 |",
        "| poll, p95 | 101 ms; bar 250 ms holds |",
        "| growth | 6.5 %; bar 5 % **does not hold** |",
        "| polls | 68.4 a second |",
        "| vit-b16: ours | 18 ms, 25 % of peak | 0.900 |",
        "| vit-b16, 8 runs: in lockstep | 321.0 steps/s | 6.000 |",
    ):
        assert line in text.splitlines(), line
    assert text.count("on A Machine, 1 of 2 cores; torch 9.8, transformers 7.6, peft 5.4.") == len(PARTS)
    assert "plain copies at d = 4 cost 2.50 times as much above the floor" in text and "memory: `" not in text
    assert "**50 viewers of the page for 600 s while two comparisons train.**" in text
    assert "**The page's time bars, medians; Chromium 150.0; not measured: paint.**" in text
    assert "Not measured" not in text and "training step" not in text


@pytest.mark.parametrize(("ours", "said"), [(102.0, "102"), (150.0, "1.5")])
def test_a_peer_that_is_faster_is_named(ours, said):
    text = section(documents(ours))
    assert f"`peft LoRA rank=32` is ahead of `capaboost_lora:rank=32,d=2`, which takes {ours / 100:.3f} times" in text
    assert said in text and "vit-b16: `PEFT" not in text


def test_where_none_is_it_says_so():
    assert "In none of these is a peer ahead." in section(documents(ours=99.0))
    assert "peer" not in section({"rank": documents()["rank"]})


def test_a_column_appears_where_something_stands_in_it():
    found = documents()
    assert "of the floor" not in section(found)
    found["step"]["rows"][2]["step_vs_floor"] = 1.05
    assert "| capaboost_lora:rank=32,d=2 | 102 ms | 1.020 | 1.050 |" in section(found)


def test_what_is_not_there_is_not_measured_and_a_dry_run_is_none(tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps({"dry_run": True}))
    (tmp_path / "step.json").write_text(json.dumps(documents()["step"]))
    assert read(tmp_path).keys() == {"step"}
    assert "Not measured: memory, memory_rank_32, plan, rank, scaling, page, app, gpu." in section(read(tmp_path))


def test_only_what_is_between_the_markers_changes():
    text = rewritten(f"before\n{BEGIN}\nold\n{END}\nafter\n", {})
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert rewritten(text, {}) == text
    with pytest.raises(SystemExit, match="must hold"):
        rewritten("nothing here", {})
