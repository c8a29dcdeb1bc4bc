"""The theorem's command: rank d r where there is room, and a reason wherever it is less."""

from __future__ import annotations

import json

import pytest
import torch

from peft_core.cli import main
from peft_core.methods import get_method, resolve
from peft_core.records import InputError, MethodSpec, checked
from peft_core.theorem import TheoremSpec, _copies, theorem
from tests.conftest import miniature


def measured(**options):
    return theorem(TheoremSpec(**{"rank": 4, "d": 3, "shape": (40, 36), "draws": 20} | options))


@pytest.mark.parametrize("options", [{}, {"masks": "2:4"}, {"masks": "1:2"}, {"sparsity": 0.3}, {"d": 9}, {"d": 1}])
def test_every_draw_has_rank_d_r_where_there_is_room(options):
    found = measured(**options)
    assert found["share_equal"] == 1
    assert found["mean_rank"] == found["target"] == found["bound"] == 4 * options.get("d", 3)
    assert "different directions" in found["explanation"]


@pytest.mark.parametrize(
    ("options", "rank", "why"),
    [
        ({"masks": "same"}, 4, "share their masks"),
        ({"sparsity": 0.0}, 4, "no value is masked"),
        ({"masks": "4:4"}, 4, "no value is masked"),
        ({"d": 10}, 36, "smaller side 36"),
        ({"shape": (8, 40)}, 8, "smaller side 8"),
    ],
)
def test_the_certain_edges_and_their_reasons(options, rank, why):
    found = measured(**options)
    assert found["share_equal"] == 0
    assert found["mean_rank"] == found["least_rank"] == found["largest_rank"] == found["bound"] == rank
    assert why in found["explanation"]


def test_with_few_values_left_directions_are_empty():
    found = measured(sparsity=0.97)
    assert found["share_equal"] < 1 and found["mean_empty"] > 0
    assert found["mean_rank"] <= found["target"] - found["mean_empty"]
    assert "without any value" in found["explanation"]


def test_copies_that_share_their_only_values_are_combinations():
    found = theorem(TheoremSpec(rank=16, d=2, masks="1:16", shape=(256, 32), draws=20))
    assert found["mean_empty"] == 0 and found["mean_rank"] < 32 == found["target"]
    assert "too few rows or columns" in found["explanation"]


def test_the_masks_are_the_method_s_and_the_rank_that_of_the_dense_sum():
    spec = TheoremSpec(rank=4, d=2, shape=(32, 32), sparsity=0.5, seed=5)
    a, b = (_copies(shape, spec, "layer.0.q", role) for shape, role in (((4, 32), "A"), ((32, 4), "B")))
    config = resolve(MethodSpec.parse("capaboost_lora:rank=4,d=2,sparsity=0.5"))
    attached = get_method("capaboost_lora").attach(miniature("roberta"), config, torch.Generator().manual_seed(5))
    module = attached.modules["layer.0.q"]
    assert torch.equal(a != 0, module.mask_A.masks) and torch.equal(b != 0, module.mask_B.masks)
    assert int(torch.linalg.matrix_rank((b @ a).sum(0))) == 8


def test_equal_seeds_draw_the_same():
    assert measured(sparsity=0.95) == measured(sparsity=0.95)
    assert measured(sparsity=0.95)["mean_rank"] != measured(sparsity=0.95, seed=1)["mean_rank"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"masks": "dropout"}, "masks"),
        ({"masks": "3:2"}, "masks"),
        ({"masks": "2:4", "sparsity": 0.9}, "sparsity"),
        ({"masks": "2:4", "rank": 6}, "masks"),
        ({"shape": (0, 4)}, "shape"),
        ({"rank": 8192, "d": 64, "shape": (256, 16)}, "rank"),
        ({"draws": 0}, "draws"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(options, field):
    with pytest.raises(InputError) as caught:
        theorem(checked(TheoremSpec, {"shape": (16, 16), "draws": 1} | options))
    assert caught.value.field == field


def test_the_command_prints_one_document(capsys):
    words = "theorem --rank 4 --d 2 --sparsity 0.5 --shape 24x32 --draws 5 --json"
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["share_equal"] == 1 and found["bound"] == 8 and found["shape"] == [24, 32]
    assert main(["theorem", "--rank", "4", "--d", "2", "--shape", "24"]) == 2
    assert "shape is '24'" in capsys.readouterr().err
