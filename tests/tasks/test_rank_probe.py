"""The hidden update of rank_probe: of the spectrum and size asked for, from the seed alone, gone afterwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peft_core.records import Site
from peft_core.tasks import get_task
from peft_core.tasks.rank_probe import OUTPUTS, hidden_update, site_weight

TASK = get_task("rank_probe")
DEFAULTS = dict(TASK.info.options)


def site(name: str = "layer.0.q", **changes: Any) -> Site:
    values: dict[str, Any] = {
        "name": name, "module": "map", "layer": 0, "role": "q", "in_features": 24, "out_features": 16
    }  # fmt: skip
    return Site(**{**values, **changes})


class Backbone:
    """One map; the second half of a fused one is the site where `fused`."""

    def __init__(self, fused: bool = False) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.ModuleDict({"map": torch.nn.Linear(24, 32 if fused else 16)})
        self.hidden_size = 32 if fused else 16
        self.chosen = site(offset=16 if fused else 0)

    def sites(self, selection: str) -> tuple[Site, ...]:
        assert selection == "qv"
        return (self.chosen,)

    def features(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.model["map"](inputs)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_flat_update_has_its_rank_and_equal_singular_values(rank: int) -> None:
    values = torch.linalg.svdvals(hidden_update(site(), 0, {**DEFAULTS, "rank": rank}))
    assert torch.allclose(values[:rank], values[0].expand(rank), atol=1e-6)
    assert values[rank:].abs().max().item() < 1e-6 if rank < 16 else True


def test_a_decaying_update_falls_by_a_constant_factor() -> None:
    values = torch.linalg.svdvals(hidden_update(site(), 0, {**DEFAULTS, "spectrum": "decaying", "rank": 2}))
    assert torch.allclose(values[1:6] / values[:5], torch.full((5,), 0.60653), atol=1e-3)


@pytest.mark.parametrize("spectrum", ["flat", "decaying", "gaussian"])
def test_updates_have_norm_one_and_follow_seed_and_site(spectrum: str) -> None:
    options = {**DEFAULTS, "spectrum": spectrum}
    update = hidden_update(site(), 0, options)
    assert update.shape == (16, 24)
    assert update.norm().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(update, hidden_update(site(), 0, options))
    assert not torch.allclose(update, hidden_update(site(), 1, options))
    assert not torch.allclose(update, hidden_update(site("layer.1.q"), 0, options))


@pytest.mark.parametrize("fused", [False, True])
def test_the_teacher_changes_its_site_alone_and_leaves_no_trace(fused: bool) -> None:
    backbone = Backbone(fused)
    inputs = torch.randn(5, 24)
    before = backbone.features(inputs)
    assert TASK.teacher is not None
    with TASK.teacher(backbone, 3, {"strength": 0.5}) as targets:
        taught = backbone.features(inputs)
        assert targets(taught).shape == (5, OUTPUTS)
    weight = site_weight(backbone.model["map"], backbone.chosen)
    update = hidden_update(backbone.chosen, 3, DEFAULTS) * 0.5 * weight.norm()
    start = backbone.chosen.offset
    assert torch.allclose(taught[:, start:], before[:, start:] + inputs @ update.T, atol=1e-5)
    assert torch.equal(taught[:, :start], before[:, :start])
    assert torch.equal(backbone.features(inputs), before)


def test_a_transposed_weight_is_read_the_right_way_round() -> None:
    module = SimpleNamespace(weight=torch.arange(24 * 16).reshape(24, 16).float())
    assert site_weight(module, site(transposed=True)).shape == (16, 24)
