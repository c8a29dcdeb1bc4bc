"""The benchmark's measurements: that they run and say what they should, never how long something took."""

from __future__ import annotations

import json

import pytest
import torch

from peft_core.cli import main
from peft_core.commands._bench import attach_for_bench, floor_step, step_of
from peft_core.commands._plain_copies import Copies, plain_copies_step
from peft_core.records import MethodSpec
from peft_core.training.memory import kept_by_kind
from tests.conftest import batch_for, miniature

BOOSTED = "lora:rank=4,boost.d=3,boost.sparsity=0.5"


def bench(capsys, *arguments: str) -> dict:
    assert main(["bench", "--rows", "2", "--tokens", "8", "--repeats", "1", "--rank", "4", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_step_is_measured_beside_the_floor_and_a_peer(capsys):
    pytest.importorskip("peft")
    found = bench(capsys, "--model", "tiny-text", "--against", "peft")
    labels = [row["label"] for row in found["rows"]]
    assert len(labels) == 6 and labels[0] == found["reference"] == "peft LoRA rank=4"
    assert labels[-2:] == ["floor", "floor, every token"]
    *others, floor, plain = found["rows"]
    assert floor["step_vs_floor"] == 1 and plain["step_vs_plain_floor"] == 1
    assert floor["peak_bytes"] < min(row["peak_bytes"] for row in (*others, plain))


def test_merged_inference_is_measured_beside_unmerged_and_answers_the_same(capsys):
    pytest.importorskip("peft")
    found = bench(capsys, "--model", "tiny-text", "--what", "inference", "--against", "peft")
    rows = {row["label"]: row for row in found["rows"]}
    assert len(rows) == 7 and sum(label.endswith(", merged") for label in rows) == 3
    assert found["largest_difference_to_merged"].keys() == {label for label in rows if f"{label}, merged" in rows}
    assert max(found["largest_difference_to_merged"].values()) < 1e-5
    for label, row in rows.items():
        assert row["rows_per_second"] == pytest.approx(2000 / row["ms_median"])
        assert (row["time_vs_merged"] is None) == (label == "the backbone alone")
        if label.endswith(", merged"):
            assert row["time_vs_merged"] == 1
    assert rows["the backbone alone"]["time_vs_bare"] == 1


def test_a_plain_implementation_has_d_times_the_adapter_and_its_optimizer(capsys):
    found = bench(capsys, "--model", "tiny-text", "--what", "memory")
    assert found["plain_over_ours"]["adapter_bytes"] == found["plain_over_ours"]["optimizer_bytes"] == 4
    ours = [row for row in found["rows"] if row["label"].startswith("lora")]
    assert len({row["adapter_bytes"] for row in ours}) == 1
    first, *more = (row["mask_bytes"] for row in ours)
    assert more == [2 * first, 4 * first], "d = 1, 2 and 4: a bit for each value of each mask, rows in whole bytes"
    assert 16 * first < ours[0]["adapter_bytes"]
    kept = found["lives"][ours[0]["label"]]["kept_by_kind"]
    assert kept["_ProductBackward"] > 0 and all(value > 0 for value in kept.values())


def test_the_plain_implementation_trains_as_ours_does():
    backbone, spec = miniature("roberta", problem="classification"), MethodSpec.parse(BOOSTED)
    batch, labels = batch_for(backbone), torch.tensor([0, 1, 2, 0, 1, 2])
    ours, like = attach_for_bench(backbone, spec), attach_for_bench(backbone, spec)
    step = step_of(ours, batch, labels)
    head = {name: value.detach().clone() for name, value in ours.head.items()}
    plain, own, masks = plain_copies_step(backbone, like, head, batch, labels)
    assert masks == 3 * 4 * sum(value.numel() for name, value in ours.trainable().items() if "adapter" in name)
    for _ in range(3):
        step()
        plain()
    assert len(own) == 3 * 2 * len(ours.modules)
    for site, pair in ours.at_sites:
        for copy in range(3):  # in float32, after three divisions by Adam's second moment
            torch.testing.assert_close(own[f"{site.module}.A.{copy}"], pair.A, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(own[f"{site.module}.B.{copy}"], pair.B, rtol=1e-3, atol=1e-5)


def test_copies_that_share_their_gradients_stay_equal():
    masks = torch.rand((3, 4, 8), generator=torch.Generator().manual_seed(0)) < 0.5
    copies = Copies(torch.randn(4, 8), torch.randn(8, 4), masks, masks.mT, 2.0)
    copies(torch.randn(5, 8)).square().sum().backward()
    copies.tie()
    assert all(torch.equal(copy.grad, copies.A[0].grad) for copy in copies.A)
    assert len({copy.grad.data_ptr() for copy in copies.A}) == 3


def test_the_floor_has_no_gradient_but_the_heads_and_goes_down_to_the_first_site():
    backbone = miniature("roberta", problem="classification")
    attached, batch = attach_for_bench(backbone, MethodSpec.parse(BOOSTED)), batch_for(backbone)
    layers, seen = [backbone.model.get_submodule(site.module) for site in backbone.sites("qv")], []
    handles = [layer.register_forward_hook(lambda module, args, output: seen.append(args[0])) for layer in layers]
    floor_step(backbone, MethodSpec.parse(BOOSTED), batch, torch.tensor([0, 1, 2, 0, 1, 2]))()
    with attached.idle():
        logits = backbone.logits(batch)
    for handle in handles:
        handle.remove()
    reached = [x.requires_grad for x in seen[len(layers) :]]
    assert reached[:2] == [False, False] and all(reached[2:]) and logits.requires_grad
    assert all(parameter.grad is None for parameter in attached.trainable().values())


def test_what_is_kept_is_told_by_kind():
    weight, x = torch.randn(8, 8, requires_grad=True), torch.randn(16, 8)
    found = kept_by_kind(torch.nn.functional.gelu(x @ weight).sum(), [weight])
    assert found == {"MmBackward": x.nbytes, "GeluBackward": 16 * 8 * 4}
