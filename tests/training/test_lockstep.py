"""Lockstep: several runs in one pass are what they are alone, and nothing that happens to one reaches the others."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from peft_core.backbones import initial_head, load_backbone
from peft_core.methods import Fold, get_method, list_methods, resolve
from peft_core.records import ComparisonSpec, MethodSpec, RunFailure, RunSpec, TrainingConfig
from peft_core.tasks import get_tasks
from peft_core.training.checkpoint import latest_checkpoint
from peft_core.training.counting import Flops, StepCounter
from peft_core.training.data import load_data
from peft_core.training.lockstep import Together, lockstep_groups, why_alone
from peft_core.training.loop import Run, evaluated, finish, train
from peft_core.training.schedule import Schedule
from tests.conftest import has_place, miniature
from tests.training.test_loop import DATA, IMAGES, INFO, curve

SIZES = ("rank", "bottleneck", "target_rank", "length")
MIXED = (
    "lora:rank=4",
    "capaboost_lora:rank=2,d=3",
    "increlora:target_rank=3",
    "adalora:target_rank=2",
    "capaboost_pfeiffer:bottleneck=4",
    "adapter_houlsby:bottleneck=3",
    "adamix:bottleneck=4,experts=2",
    "propetl_lora:rank=2",
    "capaboost_prefix:length=2",
    "prefix:length=3,bottleneck=4",
    "bitfit",
    "head",
)
"""Every family, modules that are multiplied together and modules that are called by themselves."""
BESIDE = [(method, seed) for seed, method in enumerate(MIXED)]


@pytest.fixture
def double():
    """Everything in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small(method_id: str) -> str:
    given = [f"{size}=3" for size in SIZES if size in get_method(method_id).Config.model_fields]
    return method_id + (":" + ",".join(given) if given else "")


def make_runs(backbone, methods, data=None, folder=None, **training) -> list[Run]:
    """Runs of one comparison; methods: with their options, each beside its seed."""
    dtype = torch.get_default_dtype()
    backbone.model.to(dtype)
    data = data or (IMAGES if backbone.modality == "image" else DATA)
    tasks = data if isinstance(data, tuple) else (data,)
    if backbone.modality == "image":
        tasks = tuple(replace(task, train=replace(task.train, images=task.train.images.to(dtype))) for task in tasks)
    config = TrainingConfig(**{"steps": 10, "batch_size": 6, "eval_every": 5, "learning_rate": 1e-2} | training)
    schedule = Schedule([task.train.lengths() for task in tasks], config.batch_size, 0, config.temperature)
    runs = []
    for number, (method, seed) in enumerate(methods):
        spec = MethodSpec.parse(method)
        attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(seed))
        if len(tasks) > 1:
            attached.share_among(len(tasks))
        for task in range(len(tasks)):
            initial = initial_head(backbone, seed)
            attached.train_head({name: value.to(dtype) for name, value in initial.items()}, task)
        comparison = ComparisonSpec(methods=(spec,), training=config)
        described = RunSpec(run=f"c-{number}", comparison=comparison, method=spec, label=method, seed=seed)
        own = folder / described.run if folder else None
        runs.append(Run(described, resolve(spec), attached, tasks, schedule, own))
    return runs


def advance(runs, together=None, live=None, until=None, records=None):
    """Records by run id; live: run ids that take part; until: a step to stop before. An exception ends its run."""
    together = together or Together(runs)
    by_id = {run.spec.run: run for run in runs}
    live, records = set(live or by_id), records if records is not None else {run: [] for run in by_id}
    while live:
        for name in sorted(live):
            records[name] += list(evaluated(by_id[name]))
            if by_id[name].step == (until or by_id[name].total_steps):
                live.discard(name)
                if until is None:
                    finish(by_id[name])
        for name, record in together.step(live).items() if live else ():
            records[name].append(record)
            if isinstance(record, Exception):
                live.discard(name)
    return records


def assert_same(backbone, methods, every=1, **options) -> None:
    """Runs in lockstep (of them every so manieth) are what each is alone: losses, norms and parameters to 1e-8."""
    runs, alone = (make_runs(backbone, methods, **options) for _ in range(2))
    together = advance(runs)
    for run, single in list(zip(runs, alone, strict=True))[::every]:
        single.counter.folded = True
        expected = {record.step: record for record in train(single) if record.event == "step"}
        for record in together[run.spec.run]:
            if isinstance(record, Exception):
                raise record
            if record.event == "step":
                one, two = (
                    (r.loss, r.grad_norm, r.penalty or 0.0, r.learning_rate, r.flops, r.active_parameters)
                    for r in (record, expected.pop(record.step))
                )
                assert one == pytest.approx(two, rel=1e-8, abs=1e-8), (run.spec.label, record.step)
        assert not expected
        assert run.parameters.keys() == single.parameters.keys()
        for name, parameter in run.parameters.items():
            torch.testing.assert_close(parameter, single.parameters[name], rtol=0, atol=1e-8)


@pytest.fixture
def uncounted(monkeypatch):
    """FLOPs are not counted, which takes longer than the steps."""
    monkeypatch.setattr(StepCounter, "prepare", lambda *_: None)
    monkeypatch.setattr(StepCounter, "pass_flops", lambda *_: Flops())
    monkeypatch.setattr(StepCounter, "token_products", lambda *_: 0)


@pytest.mark.parametrize("family", ["roberta", "vit"])
def test_every_method_for_50_steps(family, double, uncounted):
    """Two seeds of every method, and all the others beside them; of image methods those that take nothing else."""
    backbone = miniature(family)
    ids = [m.id for m in list_methods() if has_place(m, family) and (family != "vit" or m.modalities == ("image",))]
    methods = [(small(method), seed) for method in ids for seed in (3, 4)]
    options = {"steps": 50, "eval_every": 50, "batch_size": 3}
    groups = lockstep_groups(make_runs(backbone, methods, **options))
    alone = [run for group in groups if len(group) == 1 for run in group]
    assert all(run.attached.trains_matrices for run in alone) and len(groups) == len(alone) + 1
    own = [pair for pair in methods if pair not in [(run.spec.label, run.spec.seed) for run in alone]]
    assert_same(backbone, own, every=2, **options)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("roberta", {"accumulation": 2}),
        ("roberta", {"gradient_checkpointing": True}),
        ("vit", {}),
        ("t5", {}),
        ("gpt2", {}),
        ("llama", {}),
        ("deberta_v2", {}),
    ],
)
def test_families_together(family, options, double, uncounted):
    backbone, options = miniature(family), {**options, "steps": 6, "eval_every": 6}
    bypassing = [("adalora:target_rank=2,bypass_positions=true", 5)] if family == "deberta_v2" else []
    methods = [pair for pair in BESIDE + bypassing if has_place(get_method(pair[0].partition(":")[0]), family)]
    own = [(run.spec.label, run.spec.seed) for run in make_runs(backbone, methods, **options) if why_alone(run) is None]
    assert len(own) >= len(methods) - 1
    assert_same(backbone, own, **options)


def test_several_tasks_and_flops(double):
    backbone, data = miniature("roberta"), (DATA, replace(DATA, info=replace(INFO, id="other")))
    methods = [("lora:rank=4", 3), ("propetl_lora:rank=2", 4), ("adamix:bottleneck=3", 5)]
    assert_same(backbone, methods, data=data)


@pytest.mark.parametrize(
    ("model", "task"),
    [
        ("tiny-text", "span_qa"),
        ("tiny-text", "rank_probe"),
        ("tiny-seq2seq", "translation"),
        ("tiny-decoder", "data_to_text"),
    ],
)
def test_problems_together(model, task, double, uncounted):
    """Spans, numbers and texts, on models of their kind."""
    given = {"model": model, "task": task, "train_rows": 16, "eval_rows": 2, "training": {"batch_size": 4}}
    spec = ComparisonSpec(methods=(MethodSpec(id="lora"),), **given)
    info = get_tasks(task, {})[0][0].info
    torch.set_default_dtype(torch.float32)
    backbone = load_backbone(model, outputs=info.outputs, problem=info.problem, labels=info.labels)
    data = load_data(spec, backbone)
    torch.set_default_dtype(torch.float64)
    methods = [("lora:rank=2", 3), ("capaboost_pfeiffer:bottleneck=2", 4), ("prefix:length=2,bottleneck=4", 5)]
    assert_same(backbone, methods, data=data, steps=3, eval_every=3, batch_size=4)


def test_bf16_together(uncounted):
    methods = BESIDE[:1] * 2 + BESIDE[4:]
    runs = make_runs(miniature("roberta"), methods, precision="bf16", steps=4, eval_every=4)
    records, alone = advance(runs), make_runs(miniature("roberta"), methods, precision="bf16", steps=4, eval_every=4)
    for run, single in zip(runs, alone, strict=True):
        one, two = ([r.loss for r in of if r.event == "step"] for of in (records[run.spec.run], train(single)))
        assert one == pytest.approx(two, rel=2e-2), run.spec.label


def test_a_fold_holds_one_copy_of_the_backbone(uncounted):
    """8 runs compute with the same weights, and their backward pass keeps at most what 8 passes keep."""
    backbone = miniature("roberta")
    runs = make_runs(backbone, [("capaboost_lora:rank=2", seed) for seed in range(8)])
    frozen = {value.untyped_storage().data_ptr() for value in backbone.model.parameters()}
    batch, kept = DATA.train.batch(range(6), torch.device("cpu")), {}

    def keep(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    fold, sizes = Fold([run.attached for run in runs]), []
    with fold.active():
        assert {value.untyped_storage().data_ptr() for value in backbone.model.parameters()} == frozen
    for active, forward in ((fold.active, fold.logits), (runs[0].attached.active, runs[0].attached.logits)):
        kept.clear()
        with active(), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            answers = forward(batch)
        sizes.append(sum(size for place, size in kept.items() if place not in frozen))
        del answers
    assert sizes[0] <= 1.1 * 8 * sizes[1]


def by_id(records):
    return {run: curve(record for record in own if not isinstance(record, Exception)) for run, own in records.items()}


@cache
def undisturbed():
    """The curves of `BESIDE` in float32."""
    return by_id(advance(make_runs(miniature("roberta"), BESIDE)))


def test_a_resumed_group_continues_bit_for_bit(tmp_path, uncounted):
    """One run's last checkpoint is two steps older, so that the others wait for it."""
    runs = make_runs(miniature("roberta"), BESIDE, folder=tmp_path)
    together = Together(runs)
    advance(runs, together, until=5)
    runs[2].save()
    advance(runs, together, until=7)
    for run in runs[:2] + runs[3:]:
        run.save()
    again = make_runs(miniature("roberta"), BESIDE, folder=tmp_path)
    for run in again:
        run.restore(latest_checkpoint(run.folder / "checkpoints")[0])
    assert [run.step for run in again[:4]] == [7, 7, 5, 7]
    resumed = by_id(advance(again, Together(again[::-1])))
    for run, own in resumed.items():
        assert own == [entry for entry in undisturbed()[run] if entry[0] > (5 if run == "c-2" else 7)]


@pytest.mark.parametrize("gone", ["c-2", "c-4"])
def test_a_cancelled_run_leaves_the_bits_of_the_others(gone, uncounted):
    runs = make_runs(miniature("roberta"), BESIDE)
    together = Together(runs)
    records = advance(runs, together, until=4)
    advance(runs, together, {run.spec.run for run in runs} - {gone}, records=records)
    for run, own in by_id(records).items():
        assert own == [entry for entry in undisturbed()[run] if run != gone or entry[0] <= 4]


def test_a_failed_run_leaves_the_bits_of_the_others(uncounted):
    """One whose numbers overflow, one whose own hook raises."""
    runs = make_runs(miniature("roberta"), BESIDE)
    together = Together(runs)
    records = advance(runs, together, until=4)
    with torch.no_grad():
        next(iter(runs[1].parameters.values())).fill_(float("inf"))

    def refuse(step: int) -> None:
        raise ValueError(f"not at step {step}")

    runs[6].attached.before_step.append(refuse)
    advance(runs, together, records=records)
    (overflow,), (raised,) = ([r for r in records[run] if isinstance(r, Exception)] for run in ("c-1", "c-6"))
    assert isinstance(overflow, RunFailure) and "at step 5" in str(overflow)
    assert str(raised) == "not at step 4"
    for run, own in by_id(records).items():
        assert own == [entry for entry in undisturbed()[run] if run not in ("c-1", "c-6") or entry[0] <= 4]
