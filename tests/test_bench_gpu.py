"""The benchmark for a CUDA device: its dry run does everything and leaves no figure; without a device it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "assets" / "benchmarks" / "gpu.json"
PARTS = {f"{part} {model}" for part in ("steps", "lockstep") for model in ("roberta-base", "vit-b16")}
PARTS |= {"peak", "kernels", "sparse tensor cores"}


def run_script(*options: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "scripts" / "bench_gpu.sh"), *options]
    return subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=150)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from numbers(entry)


def test_the_dry_run_does_everything_and_keeps_no_figure(tmp_path):
    out = tmp_path / "gpu.json"
    done = run_script("--dry-run", "--out", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["dry_run"] is True and document["failed"] == [] and document.keys() >= PARTS
    assert not list(numbers(document))
    assert all(check["passed"] is not False for check in document["checks"])
    assert sum(check["passed"] is True for check in document["checks"]) >= 10
    assert len(document["bars"]) == 6 and {bar["met"] for bar in document["bars"]} == {None}
    labels = [line["label"] for line in document["steps roberta-base"]["lines"]]
    assert labels[0] == document["steps roberta-base"]["reference"] and len(labels) == 5
    assert {line["label"] for line in document["lockstep vit-b16"]["lines"]} >= {
        "one after another", "PEFT and the Trainer, one after another",
    }  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so():
    done = run_script()
    assert done.returncode == 2 and done.stderr.strip() == (
        "There is no CUDA device here; --dry-run tries the commands on the CPU."
    )


@pytest.mark.skipif(not KEPT.exists(), reason="not measured")
def test_what_is_kept_was_measured():
    document = json.loads(KEPT.read_text(encoding="utf-8"))
    assert document["dry_run"] is False and document["failed"] == []
    assert document["environment"]["device"] == "cuda" and document["seconds"] <= 480
