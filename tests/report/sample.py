"""A small comparison made by hand, with the shape of a recorded one."""

from __future__ import annotations

import math
from typing import Any

from peft_core.commands._made_up_store import METRIC
from peft_core.commands._made_up_store import made_up_result as sample_result
from peft_core.records import (
    ComparisonRow,
    ComparisonSpec,
    EvalRecord,
    LayerRank,
    MethodSpec,
    RankRecord,
    RunRow,
    RunState,
    StepRecord,
    TrainingConfig,
    View,
    run_specs,
)

METHODS = ("lora:rank=4", "capaboost_lora:rank=4,d=2,sparsity=0.5")


def sample_spec(steps: int = 60, seeds: tuple[int, ...] = (0, 1), methods: tuple[str, ...] = METHODS) -> ComparisonSpec:
    parsed = tuple(MethodSpec.parse(text) for text in methods)
    return ComparisonSpec(methods=parsed, seeds=seeds, training=TrainingConfig(steps=steps))


def step_events(run: str, label: str, seed: int, step: int, every: int) -> list[dict[str, Any]]:
    """What a run reports at one step."""
    rank = 8 if "d=2" in label else 4
    gain = 1 - math.exp(-step / 40)
    records: list[Any] = [
        StepRecord(
            run=run,
            step=step,
            loss=0.7 - 0.4 * gain + 0.05 * math.sin(step * (seed + 2.3) * rank),
            learning_rate=1e-3,
            grad_norm=1.0,
            seconds=0.03 * step,
            flops=2e9 * step,
            adapter_flops_executed=1e6 * step * rank,
            adapter_flops_nominal=1e6 * step * 4,
            active_parameters=8192 if rank == 4 else 6144,
        )
    ]
    if step % every == 0:
        score = 0.1 * seed * gain + (0.6 + 0.01 * rank) * gain
        records.append(
            EvalRecord(run=run, step=step, scores={METRIC: score, "accuracy": 0.5 + score / 2}, loss=0.5, seconds=0.2)
        )
        layers = tuple(
            LayerRank(
                site=f"layer.{n}.q",
                layer=n,
                role="q",
                numerical=rank,
                effective=rank * (0.5 + 0.4 * gain) + 0.1 * n,
                stable=1 + gain,
                norm=1.0,
                bound=rank,
            )
            for n in range(4)
        )
        records.append(RankRecord(run=run, step=step, layers=layers))
    return [record.model_dump(mode="json") for record in records]


def sample_view(steps: int = 60, seeds: tuple[int, ...] = (0, 1), methods: tuple[str, ...] = METHODS) -> View:
    """A finished comparison."""
    spec = sample_spec(steps, seeds, methods)
    every = spec.training.eval_interval(steps)
    events: list[dict[str, Any]] = []
    rows = []
    for run in run_specs("c1", spec):
        score = 0.0
        for step in range(1, steps + 1):
            new = step_events(run.run, run.label, run.seed, step, every)
            score = next((event["scores"][METRIC] for event in new if event["event"] == "eval"), score)
            events += new
        result = sample_result(run.label, run.seed, score, steps)
        events.append({"event": "state", "run": run.run, "step": steps, "state": "finished", "error": None})
        rows.append(
            RunRow(
                run=run.run,
                label=run.label,
                method=run.method,
                config={**run.method.options, "alpha": None},
                seed=run.seed,
                state=RunState.FINISHED,
                step=steps,
                total_steps=steps,
                result=result,
            )
        )
    numbered = [{**event, "seq": place + 1} for place, event in enumerate(events)]
    comparison = ComparisonRow(
        id="c1",
        created="2026-01-02T03:04:05Z",
        number=1,
        spec=spec,
        state=RunState.FINISHED,
        plan={"execution": "apart", "workers": 1, "threads": 1, "device": "cpu", "why": "One worker <in turns>."},
        environment={"cpu": "two cores", "torch": "2.13.0"},
        baseline_score=0.0,
        metric=METRIC,
        progress=1.0,
    )
    return View(seq=len(numbered), comparison=comparison, runs=tuple(rows), events=numbered)
