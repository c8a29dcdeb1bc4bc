"""The playground's pictures of a pair: the masks of training, and the rank and spectrum of the dense sum."""

from __future__ import annotations

import base64

import pytest
import torch

from peft_core.methods import get_method, resolve
from peft_core.playground import Sketch, clamped, draw_pair, drawn, sketched
from peft_core.playground.pair import pair_at
from peft_core.playground.picture import WINDOW
from peft_core.records import InputError, MethodSpec, checked
from peft_core.theorem import TheoremSpec, theorem
from tests.conftest import miniature

SMALL = {"rank": 4, "d": 3, "out_features": 40, "in_features": 36}
KINDS = ("random", "2:4", "same", "none")


def sketch(**options) -> Sketch:
    return Sketch(**SMALL | options)


def dense(pair) -> torch.Tensor:
    return torch.einsum("dor,dri->oi", pair.b * pair.masks_b, pair.a * pair.masks_a)


@pytest.mark.parametrize("sides", ["both", "A", "B"])
@pytest.mark.parametrize("masks", KINDS)
def test_rank_and_spectrum_are_those_of_the_dense_sum(masks, sides):
    found = sketched(sketch(masks=masks, sides=sides))
    values = torch.linalg.svdvals(dense(draw_pair(sketch(masks=masks, sides=sides))))
    rank = found["rank"]["numerical"]
    assert rank == int(torch.linalg.matrix_rank(dense(draw_pair(sketch(masks=masks, sides=sides)))))
    assert rank == found["bound"] == (12 if sides == "both" and masks in ("random", "2:4") else 4)
    assert found["spectrum"]["index"] == list(range(1, rank + 1))
    assert found["spectrum"]["value"] == pytest.approx(values[:rank].tolist(), rel=1e-5)
    assert found["rank"]["stable"] == pytest.approx(float(values.square().sum() / values[0] ** 2))


@pytest.mark.parametrize("masks", ["random", "2:4", "same"])
def test_the_masks_are_those_that_training_draws(masks):
    boost = {"sparsity": 0.5} if masks != "2:4" else {}
    drawn_here = pair_at(
        sketch(d=2, masks=masks, seed=5, out_features=32, in_features=32, **boost),
        "layer.0.q",
    )
    config = resolve(MethodSpec.parse(f"capaboost_lora:rank=4,d=2,masks={masks}"))
    attached = get_method("capaboost_lora").attach(miniature("roberta"), config, torch.Generator().manual_seed(5))
    module = attached.modules["layer.0.q"]
    assert torch.equal(drawn_here.masks_a, module.mask_A.masks)
    assert torch.equal(drawn_here.masks_b, module.mask_B.masks)


def test_what_survives_is_counted_and_expected():
    found = sketched(sketch(sparsity=0.5, out_features=400, in_features=400))
    for role in ("A", "B"):
        survivors = found["survivors"][role]
        assert survivors["expected"] == pytest.approx(1 - 0.5**3)
        assert survivors["share"] == pytest.approx(survivors["expected"], abs=0.04)
    pair = draw_pair(sketch(sparsity=0.5, out_features=400, in_features=400))
    assert found["survivors"]["A"]["kept"] == int(pair.masks_a.any(0).sum())
    assert found["parameters"]["kept"] == int(pair.masks_a.any(0).sum() + pair.masks_b.any(0).sum())
    one = sketched(sketch(sides="A"))["survivors"]
    assert one["B"] == {"kept": 160, "total": 160, "share": 1.0, "expected": 1.0} and one["A"]["share"] < 1
    same = sketched(sketch(masks="same", sparsity=0.25))["survivors"]["A"]
    assert same["share"] == same["expected"] == 0.75


def pixels(picture) -> torch.Tensor:
    raw = torch.frombuffer(bytearray(base64.b64decode(picture["data"])), dtype=torch.uint8)
    return raw.reshape(picture["rows"], picture["cols"])


def test_pictures_hold_the_masks_bit_by_bit_and_the_signs_of_the_update():
    asked = sketch(out_features=200)
    pictures, pair = sketched(asked)["pictures"], draw_pair(asked)
    masks = pixels(pictures["masks_b"])
    assert pictures["masks_b"]["of"] == [4, 200] and masks.shape == (4, WINDOW)
    for branch in range(3):
        assert torch.equal((masks >> branch & 1).bool(), pair.masks_b[branch, :WINDOW].T)
    delta, corner = pixels(pictures["delta"]).int() - 128, dense(pair)[:WINDOW, :WINDOW]
    assert pictures["delta"]["of"] == [200, 36] and delta.abs().max() == 127
    assert torch.allclose(delta / 127, (corner / corner.abs().max()).float(), atol=0.004)


@pytest.mark.parametrize(
    ("options", "rank", "said"),
    [
        ({}, 12, "different directions"),
        ({"d": 1}, 4, "One branch"),
        ({"masks": "same"}, 4, "same mask"),
        ({"masks": "none"}, 4, "Nothing is masked"),
        ({"sparsity": 0.0}, 4, "Nothing is masked"),
        ({"sides": "B"}, 4, "has the same A"),
        ({"rank": 16}, 36, "no 40 x 36 matrix"),
        ({"sparsity": 0.97}, None, "without any value"),
    ],
)
def test_the_sentence_says_what_decides_the_rank(options, rank, said):
    found = sketched(sketch(**options))
    assert said in found["why"]
    assert found["rank"]["numerical"] == rank if rank else found["rank"]["numerical"] < found["bound"]


def test_an_update_without_any_value_has_no_spectrum():
    found = sketched(sketch(sparsity=0.99, rank=1, out_features=8, in_features=8))
    assert found["rank"]["numerical"] == 0 and found["spectrum"] == {"index": [], "value": []}
    assert pixels(found["pictures"]["delta"]).unique().tolist() == [128]


@pytest.mark.parametrize("options", [{}, {"sparsity": 0.95}, {"masks": "same"}, {"d": 8, "rank": 8}])
def test_draws_agree_with_the_theorem_s_command(options):
    asked = sketch(**options)
    found = drawn(asked, draws=12, seconds=60)
    masks = {"masks": asked.masks, "sparsity": asked.sparsity}
    expected = theorem(TheoremSpec(rank=asked.rank, d=asked.d, shape=asked.shape, draws=12, **masks))
    for name in ("share_equal", "mean_rank", "least_rank", "largest_rank", "target", "bound", "draws"):
        assert found[name] == expected[name]
    assert [entry["rank"] for entry in found["branches"]][asked.d - 1] == sketched(asked)["rank"]["numerical"]
    bounds = [asked.model_copy(update={"d": d}).bound for d in range(1, 9)]
    assert [entry["bound"] for entry in found["branches"]] == bounds


def test_draws_end_with_their_time():
    assert drawn(sketch(), draws=100_000, seconds=0.05)["draws"] < 100_000
    assert drawn(sketch(), seconds=0)["draws"] == 1


def test_values_from_outside_are_brought_into_range_and_said():
    found, notes = clamped({"rank": 500, "d": 0, "sparsity": 2, "out_features": 1e9, "in_features": -4})
    assert (found.rank, found.d, found.sparsity, found.shape) == (64, 1, 0.99, (768, 8))
    assert len(notes) == 5 and notes[0].startswith("r was set to 64")
    found, notes = clamped({"rank": 6, "masks": "2:4", "in_features": 30})
    assert (found.rank, found.in_features, found.zeros) == (8, 32, 0.5) and len(notes) == 2
    assert clamped({"rank": 63, "masks": "1:8", "sides": "A"})[0].rank == 63
    assert clamped({}) == (Sketch(), [])


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"rank": "many"}, "rank"),
        ({"rank": 2.5}, "rank"),
        ({"rank": float("nan")}, "rank"),
        ({"sparsity": None}, "sparsity"),
        ({"masks": "dropout"}, "masks"),
        ({"masks": "3:2"}, "masks"),
        ({"masks": "1:100"}, "rank"),
        ({"masks": 7}, "masks"),
        ({"sides": "C"}, "sides"),
        ({"seed": -1}, "seed"),
        ({"colour": 1}, "colour"),
    ],
)
def test_what_is_no_value_is_refused_at_its_field(values, field):
    with pytest.raises(InputError) as caught:
        clamped(values)
    assert caught.value.field == field


def test_a_sketch_refuses_patterns_that_do_not_divide():
    with pytest.raises(InputError, match="M must divide r = 6"):
        checked(Sketch, {"rank": 6, "masks": "2:4"})
