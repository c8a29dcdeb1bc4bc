"""Every method that has a place in a model at once, through the command line; one without a place is refused."""

from __future__ import annotations

import json
import math

import pytest

from peft_core.cli import main
from peft_core.methods import list_methods

OPTIONS = {"increlora": ":target_rank=2", "prefix": ":bottleneck=16,length=4", "adamix": ":bottleneck=4,experts=2"}
"""What keeps short runs short: IncreLoRA must reach its target in half of the steps."""
SHORT = ["--seeds", "1", "--steps", "6", "--train-rows", "16", "--eval-rows", "16", "--batch-size", "4"]


@pytest.mark.parametrize(
    ("model", "task", "modality"), [("tiny-text", "acceptability", "text"), ("tiny-vision", "digits", "image")]
)
def test_all_methods_with_a_place_finish_together(model, task, modality, capsys, tmp_path):
    ids = [method.id for method in list_methods() if modality in method.modalities]
    methods = [word for name in ids for word in ("--method", name + OPTIONS.get(name, ""))]
    assert main(["compare", "--model", model, "--task", task, *methods, *SHORT, "--json", "--out", str(tmp_path)]) == 0
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert [run["method"] for run in runs] == ids
    assert {run["state"] for run in runs} == {"finished"}
    losses = {name: [] for name in ids}
    for line in capsys.readouterr().out.splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            losses[event["method"]].append(event["loss"])
    assert all(len(values) == 6 and all(map(math.isfinite, values)) for values in losses.values())


def test_a_method_without_a_place_is_refused_before_training(capsys, tmp_path):
    arguments = ["--model", "tiny-text", "--task", "acceptability", "--method", "lora", "--method", "vpt_deep"]
    assert main(["compare", *arguments, *SHORT, "--json", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err == "method is 'vpt_deep'; tiny-text is no image encoder with a class token.\n"
    assert not (tmp_path / "home").exists()
