"""A whole comparison on the embedded models: what it reports, what it stores, what it survives."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from peft_core.backbones import initial_head, load_backbone
from peft_core.methods import get_method, list_methods, resolve
from peft_core.records import ComparisonSpec, MethodSpec, RunState, TrainingConfig, run_specs
from peft_core.training import train_comparison
from peft_core.training.data import load_data
from peft_core.training.evaluate import evaluate
from peft_core.training.native import load_adapter


def compare(tmp_path, *methods: str, stop=lambda run: False, **spec):
    training = TrainingConfig(**{"steps": 6, "batch_size": 16, "eval_every": 3} | spec.pop("training", {}))
    chosen = tuple(MethodSpec.parse(method) for method in methods)
    comparison = ComparisonSpec(
        **{"methods": chosen, "seeds": (0,), "training": training, "train_rows": 64, "eval_rows": 40} | spec
    )
    events, facts = [], []
    runs = run_specs("c", comparison)
    train_comparison(comparison, runs, folder=tmp_path, emit=events.append, notice=facts.append, stop=stop)
    results = {}
    for run in runs:
        last = [event for event in events if event.run == run.run and event.event == "state"][-1]
        results[run.label] = last
    return results, events, facts


def test_ranks_and_stored_bytes_of_the_default_comparison(tmp_path):
    lora, boosted, wide = (
        "lora:rank=4",
        "capaboost_lora:rank=4,d=2,sparsity=0.5",
        "capaboost_lora:rank=8,d=4,sparsity=0.5",
    )
    results, events, _ = compare(tmp_path, lora, boosted, wide)
    assert all(end.state is RunState.FINISHED for end in results.values())
    for label, rank in ((lora, 4), (boosted, 8), (wide, 32)):
        end = results[label].result
        assert end.trials is not None and end.trials >= 1
        assert end.rank["numerical_mean"] == end.rank["numerical_max"] == end.rank["bound"] == rank
        last = [event for event in events if event.event == "rank" and event.run == results[label].run][-1]
        assert {layer.numerical for layer in last.layers} == {rank} and len(last.layers) == 8
    assert results[boosted].result.stored_bytes <= 0.80 * results[lora].result.stored_bytes
    folder = tmp_path / results[boosted].run / "adapter"
    stored = sum((folder / name).stat().st_size for name in ("adapter.safetensors", "adapter.json"))
    assert stored == results[boosted].result.stored_bytes
    assert sum(value.numel() for value in load_file(folder / "adapter.safetensors").values()) == (
        results[boosted].result.trainable
    )


def test_what_trained_is_reported_apart_from_what_is_left(tmp_path):
    """r0 (in + out + 1) a map, whatever the run has pruned by its end (METHODS.md, section 0, Counting)."""
    adaptive = "adalora:target_rank=2,initial_rank=4,warmup=1,final=2,interval=1,sites=qv"
    sparse = "sora:rank=4,threshold=0.3,sites=qv"
    results, events, _ = compare(tmp_path, adaptive, sparse)
    for label in (adaptive, sparse):
        end = results[label]
        assert end.state is RunState.FINISHED and end.result.trainable == 8 * 4 * (128 + 128 + 1)
        last = [event for event in events if event.event == "step" and event.run == end.run][-1]
        assert last.active_parameters < end.result.trainable
        assert end.result.stored_bytes < 4 * end.result.trainable


@pytest.mark.parametrize("method", ["r_lora", "rm_lora"])
def test_a_coefficient_that_no_paper_gives_is_recorded_unasked(method, tmp_path):
    results, _, facts = compare(tmp_path, f"{method}:rank=2", training={"steps": 2})
    end = results[f"{method}:rank=2"]
    told = next(fact["config"] for fact in facts if fact.get("run") == end.run and "config" in fact)
    stored = json.loads((tmp_path / end.run / "adapter" / "adapter.json").read_text())["config"]
    assert told["orthogonality"] == stored["orthogonality"] == 1e-3 and told["squared"] is stored["squared"] is True


def test_a_stored_adapter_answers_as_the_run_did(tmp_path):
    results, _, _ = compare(tmp_path, "capaboost_pfeiffer:bottleneck=4")
    spec = MethodSpec.parse("capaboost_pfeiffer:bottleneck=4")
    backbone = load_backbone("tiny-text", outputs=2, problem="classification")
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))
    attached.train_head(initial_head(backbone, 5))
    load_adapter(tmp_path / "c-0" / "adapter", attached)
    comparison = ComparisonSpec(methods=(spec,), train_rows=64, eval_rows=40)
    data = load_data(comparison, backbone)
    scores, *_ = evaluate(attached, data, comparison.training)
    assert scores == results[str(spec)].result.score


@pytest.mark.parametrize(
    ("model", "task"), [("tiny-vision", "digits"), ("tiny-text", "rank_probe"), ("tiny-vision", "rank_probe")]
)
def test_every_method_finishes(tmp_path, model, task):
    methods, modality = [], "image" if model == "tiny-vision" else "text"
    for method in list_methods():
        if modality not in method.modalities:
            continue
        sizes = ("rank", "bottleneck", "target_rank", "length")
        small = {name: 4 for name in sizes if name in method.Config.model_fields}
        methods.append(str(MethodSpec(id=method.id, options=small)))
    results, events, facts = compare(tmp_path, *methods, model=model, task=task)
    assert {label: end.error for label, end in results.items() if end.state is not RunState.FINISHED} == {}
    scores = {event.step for event in events if event.event == "eval"}
    assert scores == {0, 3, 6}
    assert any("baseline_score" in fact for fact in facts)


def test_a_stopped_run_is_cancelled_and_the_other_goes_on(tmp_path):
    seen = []

    def stop(run: str) -> bool:
        seen.append(run)
        return run == "c-0" and len(seen) > 3

    results, _, _ = compare(tmp_path, "lora:rank=4", "head", stop=stop)
    assert results["lora:rank=4"].state is RunState.CANCELLED
    assert results["head"].state is RunState.FINISHED
    assert list((tmp_path / "c-0" / "checkpoints").iterdir())


def test_a_failed_run_leaves_the_other_alone(tmp_path):
    wild = "lora:rank=4,learning_rate=10,alpha=1000000"
    results, events, _ = compare(tmp_path, wild, "head", training={"clip_norm": None, "steps": 30})
    failed = results[wild]
    assert failed.state is RunState.FAILED
    assert "not finite" in failed.error or "became" in failed.error
    assert results["head"].state is RunState.FINISHED
    assert all("NaN" not in event.model_dump_json() for event in events)


def test_the_best_evaluation_is_chosen_on_rows_apart(tmp_path):
    results, events, _ = compare(
        tmp_path, "lora:rank=4", training={"selection": "best", "learning_rate": 0.05, "steps": 24}, eval_rows=60
    )
    end = next(iter(results.values())).result
    evaluations = [event for event in events if event.event == "eval"]
    best = max(evaluations, key=lambda event: (event.validation, -event.step))
    assert (end.selected_step, end.score) == (best.step, best.scores)
    assert end.split.endswith("; the best evaluation was chosen on 60 other rows")


def test_rows_to_choose_on_are_no_evaluation_rows():
    spec = ComparisonSpec(methods=(MethodSpec(id="lora"),), eval_rows=60, training=TrainingConfig(selection="best"))
    backbone = load_backbone("tiny-text", outputs=2, problem="classification")
    (task,) = load_data(spec, backbone)
    reported, apart = (set(map(tuple, rows.tokens["input_ids"])) for rows in (task.evaluation, task.validation))
    assert len(task.validation) == 60 and not reported & apart
    digits = spec.model_copy(update={"model": "tiny-vision", "task": "digits", "eval_rows": 450})
    (task,) = load_data(digits, load_backbone("tiny-vision", outputs=10, problem="classification"))
    assert task.validation is None, "all of its evaluation rows are reported"
