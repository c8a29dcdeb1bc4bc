"""Training on small random backbones: order, determinism, resume, failures, selection."""

from __future__ import annotations

import itertools

import pytest
import torch

from peft_core.backbones import initial_head
from peft_core.methods import get_method, list_methods, resolve
from peft_core.records import ComparisonSpec, MethodSpec, RunFailure, RunSpec, TrainingConfig
from peft_core.tasks._contract import TaskInfo
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.data import TaskData
from peft_core.training.evaluate import evaluate
from peft_core.training.loop import Run, train
from peft_core.training.optimizer import rate_factor
from peft_core.training.problems import Encoded
from peft_core.training.schedule import BatchOrder, Schedule
from tests.conftest import home, miniature

INFO = TaskInfo(
    id="toy",
    title="toy",
    description="",
    kind="classification",
    modality="text",
    metrics=("accuracy",),
    labels=("a", "b", "c"),
    outputs=3,
    train_rows=96,
    eval_rows=30,
    max_train_rows=96,
    max_eval_rows=30,
)


def rows(count: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 12, (count,), generator=generator).tolist()
    tokens = [torch.randint(4, 60, (length,), generator=generator).tolist() for length in lengths]
    labels = torch.tensor([row[0] % 3 for row in tokens])
    return Encoded({"input_ids": tokens}, None, labels, {"input_ids": 1})


DATA = TaskData(INFO, rows(96, 0), rows(30, 1))


def pictures(count: int, seed: int) -> Encoded:
    images = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Encoded(None, images, (images[:, 0, 0, 0].abs() * 3).long() % 3, {})


IMAGES = TaskData(INFO, pictures(96, 0), pictures(30, 1))


def make_run(method="capaboost_lora:rank=4", backbone=None, folder=None, seed=3, **training) -> Run:
    spec = MethodSpec.parse(method)
    config = TrainingConfig(**{"steps": 20, "batch_size": 8, "eval_every": 5, "learning_rate": 1e-2} | training)
    comparison = ComparisonSpec(methods=(spec,), training=config)
    backbone = backbone or miniature(home(spec.id))
    data = IMAGES if backbone.modality == "image" else DATA
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(seed))
    attached.train_head(initial_head(backbone, seed))
    run_spec = RunSpec(run="c-0", comparison=comparison, method=spec, label=str(spec), seed=seed)
    schedule = Schedule([data.train.lengths()], config.batch_size, 0, config.temperature)
    return Run(run_spec, resolve(spec), attached, (data,), schedule, folder)


def curve(records) -> list[tuple]:
    """What must be equal bit for bit: everything but times."""
    return [
        (r.step, r.loss, r.grad_norm, r.learning_rate)
        if r.event == "step"
        else (r.step, r.model_dump(exclude={"seconds"}))
        for r in records
    ]


@pytest.mark.parametrize("method", [method.id for method in list_methods()])
def test_a_resumed_run_continues_bit_for_bit(method, tmp_path):
    whole = curve(train(make_run(method)))
    torch.manual_seed(5)
    run = make_run(method, folder=tmp_path)
    records = train(run)
    first = [next(records) for _ in range(13)]
    run.save()
    torch.manual_seed(6)
    again = make_run(method, folder=tmp_path)
    checkpoint, said = latest_checkpoint(tmp_path / "checkpoints")
    again.restore(checkpoint)
    assert not said
    resumed = curve(train(again))
    seen = {(entry[0], len(entry)) for entry in curve(first)}
    merged = curve(first) + [entry for entry in resumed if (entry[0], len(entry)) not in seen or len(entry) == 2]
    assert {str(entry) for entry in merged} == {str(entry) for entry in whole}


def test_a_run_beside_others_on_one_backbone_is_the_same_as_alone():
    alone = curve(train(make_run("lora:rank=4")))
    backbone = miniature("roberta")
    runs = [make_run(method, backbone) for method in ("full", "lora:rank=4", "capaboost_pfeiffer:bottleneck=4")]
    streams = [train(run) for run in runs]
    collected = [[] for _ in runs]
    alive = True
    while alive:
        alive = False
        for stream, into in zip(streams, collected, strict=True):
            record = next(stream, None)
            if record is not None:
                into.append(record)
                alive = True
    assert curve(collected[1]) == alone


def test_the_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    list(train(make_run("capaboost_lora:rank=4,dropout=0.2")))
    assert torch.equal(before, torch.get_rng_state())


def test_accumulated_micro_batches_equal_the_whole_batch():
    whole = [r.loss for r in train(make_run()) if r.event == "step"]
    split = [r.loss for r in train(make_run(accumulation=4)) if r.event == "step"]
    torch.testing.assert_close(torch.tensor(split), torch.tensor(whole), rtol=2e-3, atol=1e-4)


def test_a_loss_that_is_not_finite_ends_the_run_and_says_at_which_step():
    run = make_run()
    records = train(run)
    for _ in range(4):
        next(records)
    with torch.no_grad():
        next(iter(run.parameters.values())).fill_(float("inf"))
    with pytest.raises(RunFailure, match="the loss became nan at step 3"):
        list(records)


def test_selection_best_returns_to_the_best_evaluation():
    run = make_run(selection="best", steps=30, learning_rate=0.05)
    scores = {r.step: r.scores["accuracy"] for r in train(run) if r.event == "eval"}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert run.best == (best, scores[best])
    assert evaluate(run.attached, (DATA,), run.training)[0]["accuracy"] == scores[best]


def test_bf16_trains_and_keeps_its_weights_in_fp32():
    run = make_run(precision="bf16")
    losses = [r.loss for r in train(run) if r.event == "step"]
    assert all(p.dtype == torch.float32 for p in run.parameters.values()) and losses[-1] < losses[0]


def test_records_grow_and_count():
    records = list(train(make_run()))
    steps = [r for r in records if r.event == "step"]
    assert [r.step for r in steps] == list(range(1, 21))
    assert [r.step for r in records if r.event == "eval"] == [0, 5, 10, 15, 20]
    assert [r.step for r in records if r.event == "rank"] == [0, 5, 10, 15, 20]
    assert all(b.flops > a.flops and b.seconds >= a.seconds for a, b in itertools.pairwise(steps))
    assert all(b.adapter_flops_nominal > a.adapter_flops_nominal for a, b in itertools.pairwise(steps))


def test_batches_are_a_permutation_with_little_padding():
    order = BatchOrder(DATA.train.lengths(), 8, 0)
    epoch = [order.rows(step) for step in range(order.batches_per_epoch)]
    assert sorted(row for batch in epoch for row in batch) == list(range(96))
    again = BatchOrder(DATA.train.lengths(), 8, 0)
    assert epoch == [again.rows(step) for step in range(12)]
    assert epoch != [again.rows(step) for step in range(12, 24)]
    lengths = DATA.train.lengths()
    spread = max(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in epoch)
    assert spread <= 2


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.5), (99, 1 / 90)])
def test_the_rate_rises_and_falls_linearly(step, factor):
    assert rate_factor(step, 100, 0.1) == pytest.approx(factor)
