"""The weight updates of finished runs, as the playground takes them."""

from __future__ import annotations

import pytest
import torch

from peft_core.backbones import load_backbone
from peft_core.export.finished import FinishedRun
from peft_core.export.updates import updates_of_run
from peft_core.records import InputError
from peft_core.runs import Supervisor
from peft_core.training.native import ADAPTER
from tests.ui.stand_in import StandInEngine


def finished(store, label):
    run = store.runs[label, 0]
    with Supervisor(store.home) as supervisor:
        return FinishedRun.of(supervisor.view(store.id), run, store.home / "comparisons" / store.id / run / "adapter")


def test_a_run_that_trained_everything_gives_its_differences(store):
    from safetensors.torch import load_file

    run = finished(store, "full")
    found = updates_of_run(run)
    backbone = load_backbone("tiny-text", outputs=2, problem="classification")
    trained = load_file(run.folder / ADAPTER)
    for site in backbone.sites("six"):
        weight = f"{site.module}.weight"
        assert torch.equal(found[site.name], trained[weight] - backbone.model.get_parameter(weight))
    assert any(bool(delta.any()) for delta in found.values())


def test_a_low_rank_run_gives_its_products_and_an_adapter_is_refused(store):
    found = updates_of_run(finished(store, "lora:rank=8"))
    assert all(0 < int(torch.linalg.matrix_rank(delta)) <= 8 for delta in found.values())
    with pytest.raises(InputError, match="learns no update of weights"):
        updates_of_run(finished(store, "adapter_pfeiffer:bottleneck=4"))


def test_the_page_fits_the_update_of_a_run_in_the_store(store):
    from ui.playground_service import Playground, points

    with Supervisor(store.home) as supervisor:
        playground = Playground(supervisor, StandInEngine())
        assert {entry["run"] for entry in playground.targets()} == {store.runs["full", seed] for seed in (0, 1)}
        run = store.runs["full", 0]
        site = playground.sites(run)[0]
        curves = playground.curves({"pairs": [{"rank": 4}], "run": run, "site": site["site"]})
        *_, last = points(curves)
        assert last["captured"][0] == pytest.approx(curves.target.at_rank(4), abs=0.02)
        with pytest.raises(InputError, match="no comparison or run"):
            playground.sites("../../etc")
