"""FLOPs that training executes: counted, against numbers derived by hand for one layer of every method."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from peft_core.methods import list_methods
from peft_core.metrics.flops import adapter_flops_executed, adapter_flops_nominal
from peft_core.training import counting
from peft_core.training.counting import Flops, StepCounter, eager_attention, probe_batch
from peft_core.training.loop import train
from peft_core.training.problems import Encoded
from tests.conftest import miniature
from tests.methods.test_contract import attach
from tests.miniatures import MINIATURES
from tests.training.test_loop import DATA, curve, make_run
from tests.training.test_memory import options_of

H, F = 32, 64
"""Features of a hidden state, and inside the feed-forward part."""
ROWS, WIDTH = 2, 5
TOKENS = ROWS * WIDTH
IMAGE_TOKENS = 5


def product(inner: int) -> int:
    """FLOPs of multiplying all tokens by an (H, inner) matrix, or of one of the two gradients of that product."""
    return 2 * TOKENS * inner * H


PAIR = (2, 3)
"""Products of a pair A, B at the first place that trains: both forward; backward a gradient of each factor and one of
what is between them. The input needs none, since nothing in front of it trains."""
LATER = (2, 4)
"""The same behind another pair: the input's gradient, too."""
GRAM = 2 * 4 * 4 * H
"""M M^T of M (4, H)."""
MADE = 2 * 4 * H * 3 + 2 * 4 * 3 * 2 * H
"""Four rows of keys and values from an embedding (4, H) by maps of H to 3 and 3 to 2 H."""
PROMPTED_MAPS = ROWS * 4 * 2 * (4 * H * H + 2 * H * F)
"""Four more tokens through a layer's six maps."""
PROMPTED_PAIRS = ROWS * 2 * 2 * H * ((IMAGE_TOKENS + 4) ** 2 - IMAGE_TOKENS**2)
"""Two products over all pairs of tokens, which the prompts make more."""


def pairs(inner: int, *places: tuple[int, int]) -> tuple[int, int]:
    forward, backward = (sum(column) for column in zip(*places, strict=True))
    return forward * product(inner), backward * product(inner)


def plus(counts: tuple[int, int], more: int) -> tuple[int, int]:
    """With products that have two gradients each."""
    return counts[0] + more, counts[1] + 2 * more


BY_HAND = {
    "head": (0, 0),
    "full": (0, 0),
    "bitfit": (0, 0),
    "lora:rank=4": pairs(4, PAIR, PAIR),
    "capaboost_lora:rank=4,d=3": pairs(12, PAIR, PAIR),
    "adalora:target_rank=4,initial_rank=6,sites=qv": pairs(6, PAIR, PAIR),
    "sora:rank=4,sites=qv": pairs(4, PAIR, PAIR),
    "increlora:target_rank=3,reserve=2,sites=qv": pairs(1, PAIR, PAIR),
    "r_lora:rank=4": pairs(4, PAIR, PAIR),
    "gm_lora:rank=4": pairs(4, PAIR, PAIR),
    "rm_lora:rank=4": pairs(4, PAIR, PAIR),
    "propetl_lora:rank=4": pairs(4, PAIR, PAIR),
    "adapter_pfeiffer:bottleneck=4": pairs(4, PAIR),
    "adapter_houlsby:bottleneck=4": pairs(4, PAIR, LATER),
    "capaboost_pfeiffer:bottleneck=4,d=2": pairs(8, PAIR),
    "capaboost_houlsby:bottleneck=4,d=2": pairs(8, PAIR, LATER),
    "propetl_pfeiffer:bottleneck=4": pairs(4, PAIR),
    "adamix:bottleneck=4": pairs(4, PAIR),
    "capaboost_prefix:length=4,d=2": pairs(8, PAIR),
    "prefix:length=4,bottleneck=3": plus(pairs(4, PAIR), MADE),
    "propetl_prefix:length=4,bottleneck=3": plus(pairs(4, PAIR), MADE),
    "vpt_deep:length=4": (PROMPTED_MAPS + PROMPTED_PAIRS, PROMPTED_MAPS + 2 * PROMPTED_PAIRS),
}
"""The method's own products in one layer, forward and backward. Scores of a prefix are a pair as well: queries by its
keys, probabilities by its values. IncreLoRA begins with one component a map."""


def one_layer(monkeypatch, family: str):
    values = {**MINIATURES[family], "num_hidden_layers": 1}
    monkeypatch.setitem(MINIATURES, family, values)
    return miniature(family)


def counter_of(run) -> StepCounter:
    run.counter.prepare(0, 0)
    return run.counter


@pytest.mark.parametrize("method", BY_HAND)
def test_one_layer_of_every_method_executes_what_a_hand_counts(method, monkeypatch):
    family = "vit" if method.startswith("vpt") else "roberta"
    counter = counter_of(make_run(method, one_layer(monkeypatch, family)))
    found = counter.pass_flops(0, (ROWS,) if family == "vit" else (ROWS, WIDTH))
    assert (found.module_forward, found.module_backward) == BY_HAND[method]


def test_no_method_is_left_out():
    assert {method.partition(":")[0] for method in BY_HAND} == {method.id for method in list_methods()}


def test_the_backbone_alone_by_hand(monkeypatch):
    maps, attention = 2 * TOKENS * (4 * H * H + 2 * H * F), 2 * 2 * ROWS * WIDTH**2 * H
    head = 2 * ROWS * (H * H + 3 * H)
    found = counter_of(make_run("full", one_layer(monkeypatch, "roberta"))).pass_flops(0, (ROWS, WIDTH))
    assert found.forward == maps + attention + head
    assert found.backward == 2 * found.forward, "embeddings are trained too, so every product has both gradients"
    floor = counter_of(make_run("head", one_layer(monkeypatch, "roberta"))).pass_flops(0, (ROWS, WIDTH))
    assert (floor.forward, floor.backward) == (found.forward, head + 2 * ROWS * 3 * H), "nothing behind the head"


def test_penalties_are_counted_once_a_step(monkeypatch):
    for method, factors in (("r_lora:rank=4", 4), ("rm_lora:rank=4", 4), ("lora:rank=4", 0)):
        flops = counter_of(make_run(method, one_layer(monkeypatch, "roberta"))).penalty_flops()
        assert flops == Flops(factors * GRAM, 2 * factors * GRAM, factors * GRAM, 2 * factors * GRAM)


def test_fused_attention_hides_its_products_from_the_counter():
    backbone, batch = (
        miniature("roberta"),
        {"input_ids": torch.full((3, 7), 5), "attention_mask": torch.ones(3, 7).long()},
    )
    assert backbone.config._attn_implementation == "sdpa"
    seen = []
    for within in (None, eager_attention(backbone.model)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            if within is None:
                backbone.logits(batch)
            else:
                with within:
                    backbone.logits(batch)
        seen.append(counter.get_total_flops())
    assert seen[1] - seen[0] == 2 * (2 * 2 * 3 * 7 * 7 * H), "scores and values, in two layers"
    assert backbone.config._attn_implementation == "sdpa", "as it was"
    assert counter_of(make_run("head", backbone)).pass_flops(0, (3, 7)).forward == seen[1]


def test_deberta_has_eager_attention_only():
    assert miniature("deberta_v2").config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["deberta_v2", "gpt2", "t5", "albert", "modernbert", "llama", "vit"])
@pytest.mark.parametrize("method", ["lora:rank=3", "capaboost_prefix:length=3"])
def test_other_shapes_follow_exactly_from_the_few_that_were_counted(family, method):
    run = make_run(method, miniature(family))
    counter = counter_of(run)
    for shape in ((5,), (7,)) if family == "vit" else ((5, 6), (1, 11)):
        with counter._rehearsed(0, 0):
            assert counter.pass_flops(0, shape) == counter._both(run.data[0].train, shape)


def test_reading_and_writing_have_widths_of_their_own():
    backbone = miniature("t5", problem="generation")
    rows = Encoded(
        {"input_ids": [[5, 6, 7, 1]], "decoder_input_ids": [[0, 8, 9]]},
        None,
        [[8, 9, 1]],
        {"input_ids": 0, "decoder_input_ids": 0},
    )
    assert probe_batch(rows, (2, 3, 2), torch.device("cpu"))["decoder_input_ids"].tolist() == [[0, 9], [0, 9]]
    counter = StepCounter(attach(backbone, "lora", rank=3), [rows], "t5")
    counter.prepare(0, 0)
    with counter._rehearsed(0, 0):
        assert counter.pass_flops(0, (4, 6, 5)) == counter._both(rows, (4, 6, 5))
    maps = {"encoder": 6, "decoder": 5}
    by_hand = 0
    for site in backbone.sites(None):
        cross_keys = "EncDecAttention.k" in site.module or "EncDecAttention.v" in site.module
        width = maps["encoder"] if cross_keys else maps[site.module.partition(".")[0]]
        by_hand += 2 * 4 * width * 3 * (site.in_features + site.out_features)
    assert counter.pass_flops(0, (4, 6, 5)).module_forward == by_hand


def test_a_model_whose_products_are_no_polynomial_is_counted_shape_by_shape(monkeypatch):
    run = make_run("lora:rank=3")
    logits, extra = run.attached.logits, torch.zeros(1, 1)

    def uneven(batch):
        answer = logits(batch)
        for _ in range(batch["input_ids"].shape[1] % 3):
            answer = answer + (extra @ extra)
        return answer

    monkeypatch.setattr(run.attached, "logits", uneven)
    counter = counter_of(run)
    plain = counter_of(make_run("lora:rank=3"))
    for width in (4, 5, 6):
        assert counter.pass_flops(0, (3, width)).forward == plain.pass_flops(0, (3, width)).forward + 2 * (width % 3)


@pytest.mark.parametrize("method", [method.id for method in list_methods()])
def test_counting_leaves_no_trace(method, monkeypatch):
    def losses():
        return [entry for entry in curve(train(make_run(options_of(method), steps=16, eval_every=8)))]

    torch.manual_seed(4)
    counted, state = losses(), torch.get_rng_state()
    torch.manual_seed(4)
    monkeypatch.setattr(StepCounter, "prepare", lambda *_: None)
    monkeypatch.setattr(StepCounter, "pass_flops", lambda *_: Flops())
    assert counted == losses() and torch.equal(state, torch.get_rng_state())


def test_gradients_and_attention_are_as_they_were():
    run = make_run("r_lora:rank=4")
    parameters = list(run.parameters.values())
    parameters[0].grad = torch.ones_like(parameters[0])
    counter_of(run)
    assert torch.equal(parameters[0].grad, torch.ones_like(parameters[0]))
    assert all(parameter.grad is None for parameter in parameters[1:])


def test_a_run_sums_its_batches():
    run = make_run("r_lora:rank=4", steps=6, eval_every=6, accumulation=2)
    steps = [record for record in train(run) if record.event == "step"]
    expected = Flops().total
    for step in range(6):
        _, rows = run.schedule.batch(step)
        for part in (rows[:4], rows[4:]):
            width = max(DATA.train.lengths()[row] for row in part)
            expected += run.counter.pass_flops(0, (4, width)).total
        expected += run.counter.penalty_flops().total
        assert steps[step].flops == expected
    assert sum(run.totals.passes.values()) == 12 and run.totals.examples == 48


@pytest.mark.parametrize(
    "method", ["lora:rank=3", "capaboost_lora:rank=4,d=3,sparsity=0.5", "prefix:length=4,bottleneck=3"]
)
@pytest.mark.parametrize("family", ["t5", "roberta"])
def test_nominal_flops_of_a_run_are_of_the_tokens_that_each_site_sees(method, family):
    run = make_run(method, miniature(family), steps=2, eval_every=2)
    steps = [record for record in train(run) if record.event == "step"]
    by_hand = 0
    for step in range(2):
        rows = run.schedule.batch(step)[1]
        tokens = len(rows) * max(DATA.train.lengths()[row] for row in rows)
        for count in run.attached.counts:
            ours = len(rows) if reads_one_token(family, count.site) else tokens
            by_hand += 3 * ours * adapter_flops_nominal([count])
    assert steps[-1].adapter_flops_nominal == pytest.approx(by_hand, rel=1e-12)


def reads_one_token(family: str, site: str) -> bool:
    """For classes T5's decoder starts with one token; its cross-attention's keys and values come from the encoder."""
    return family == "t5" and site.startswith("decoder") and not site.endswith(("cross_k", "cross_v"))


def test_a_second_pass_costs_as_much_again():
    one, two = (make_run(f"{method}:bottleneck=4", steps=2, eval_every=2) for method in ("adapter_pfeiffer", "adamix"))
    first, second = ([record.flops for record in train(run) if record.event == "step"] for run in (one, two))
    assert second == [2 * flops for flops in first]


def test_computing_layers_again_is_counted():
    plain, again = (counter_of(make_run("lora:rank=4", gradient_checkpointing=value)) for value in (False, True))
    one, two = (counter.pass_flops(0, (8, 9)) for counter in (plain, again))
    assert one.forward == two.forward and two.module_backward == one.module_backward + one.module_forward
    assert two.backward > one.backward + 0.9 * one.forward


@pytest.mark.parametrize("advance", ["true", "false"])
def test_growth_is_followed_exactly(advance, monkeypatch):
    passes, counted = itertools.count(), StepCounter._counted
    monkeypatch.setattr(StepCounter, "_counted", lambda *given: next(passes) * 0 or counted(*given))
    run = make_run(
        f"increlora:target_rank=4,reserve=2,interval=2,advance_learning={advance},boost.d=2", steps=40, eval_every=40
    )
    run.attached.backbone.compute_all_tokens()
    seen = set()
    for record in train(run):
        if record.event == "step" and run.step < 40:
            run.counter.prepare(0, run.step)
            found = run.counter.pass_flops(0, (4, 6))
            assert found.module_forward == 4 * 6 * adapter_flops_executed(run.attached.counts)
            if found.total not in seen:
                with run.counter._rehearsed(0, run.step):
                    assert found == run.counter._both(DATA.train, (4, 6))
            seen.add(found.total)
    assert len(seen) > 3 and next(passes) == 2 * len(seen) + 7, "no passes of its own but the first seven"


def test_runs_that_differ_in_their_seed_share_what_was_counted(monkeypatch):
    backbone = miniature("roberta")
    calls = itertools.count()
    counted = StepCounter._counted
    monkeypatch.setattr(StepCounter, "_counted", lambda *given: next(calls) * 0 or counted(*given))
    results = [counter_of(make_run("lora:rank=4", backbone, seed=seed)).pass_flops(0, (4, 6)) for seed in (1, 2)]
    assert next(calls) == 7 and results[0] == results[1]
    assert counter_of(make_run("lora:rank=5", backbone)).pass_flops(0, (4, 6)) != results[0]
    assert counting._KNOWN[backbone.model]


def test_a_merged_pair_executes_what_a_hand_counts(monkeypatch):
    """Forward W + BA once, 2 r H^2; backward what is between the factors again, and three products as in a pair."""
    counter = counter_of(make_run("lora:rank=4", one_layer(monkeypatch, "roberta")))
    for width in (H // 4, H // 4 + 1, H):  # at the first place that trains merging costs less beyond H tokens
        found, tokens = counter.pass_flops(0, (4, width)), 4 * width
        pair, square = 2 * tokens * 4 * H, 2 * 4 * H * H
        by_hand = (2 * 2 * pair, 2 * 3 * pair) if tokens <= H else (2 * square, 2 * 4 * pair)
        assert (found.module_forward, found.module_backward) == by_hand
        with counter._rehearsed(0, 0):
            assert found == counter._both(DATA.train, (4, width))


def test_under_bf16_nothing_merges(monkeypatch):
    backbone = one_layer(monkeypatch, "roberta")
    one, two = (counter_of(make_run("lora:rank=4", backbone, precision=kind)) for kind in ("fp32", "bf16"))
    assert two.pass_flops(0, (4, H)).module_forward == 2 * 2 * 2 * 4 * H * 4 * H
    assert one.pass_flops(0, (4, H)).module_forward == 2 * 2 * 4 * H * H
