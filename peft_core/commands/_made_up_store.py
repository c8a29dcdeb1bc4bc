"""A store of many runs that nobody trained, made quickly: for what has to stay fast however much was run."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from peft_core.records import ComparisonSpec, MethodSpec, RunResult, RunState, TrainingConfig
from peft_core.report.wire import short
from peft_core.runs import Store

METRIC = "matthews"
STATES = (RunState.FINISHED, RunState.FINISHED, RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)
TASKS = ("acceptability", "sentiment", "entailment", "similarity")
RESAMPLES = 1000


def fill(path: Path, methods: Sequence[MethodSpec], comparisons: int = 1250, seeds: int = 2) -> int:
    """Adds comparisons of some methods; returns how many runs that are. The ids are caaaaaaa-0 and so on."""
    Store(path).close()
    spec = ComparisonSpec(methods=tuple(methods), seeds=tuple(range(seeds)), training=TrainingConfig(steps=60))
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(comparisons):
            _add(connection, number, spec.model_copy(update={"task": TASKS[number % len(TASKS)]}))
    return comparisons * len(methods) * seeds


def made_up_result(label: str, seed: int, score: float, steps: int) -> RunResult:
    """What a finished run reports; the figures differ between a boosted method and a plain one alone."""
    boosted = "d=2" in label
    rank = 8.0 if boosted else 4.0
    return RunResult(
        score={METRIC: score, "accuracy": 0.5 + score / 2},
        baseline_score=0.0,
        split="eval",
        selection="last",
        selected_step=steps,
        trainable=6144 if boosted else 8192,
        trainable_percent=0.75 if boosted else 1.0,
        head_parameters=16770,
        stored_bytes=25000 if boosted else 33000,
        head_bytes=67080,
        rank={
            "numerical_mean": rank,
            "numerical_max": rank,
            "effective_mean": rank * 0.8,
            "stable_mean": 1.9,
            "bound": rank,
        },
        adapter_flops_executed=16384 * (2 if boosted else 1),
        adapter_flops_nominal=16384,
        flops_vs_lora=1.0,
        seconds=0.03 * steps,
        step_ms_median=30.0,
        peak_memory_bytes=300_000_000,
        learning_rate=3e-3,
        steps=steps,
        resampled=tuple(round(score + 0.05 * math.sin(place * (rank + 1)), 6) for place in range(200)),
    )


def _add(connection: sqlite3.Connection, number: int, spec: ComparisonSpec) -> None:
    name = "c" + "".join("abcdefghij"[int(digit)] for digit in f"{number:07d}")
    connection.execute(
        "INSERT INTO comparisons (id, created, spec, owner, metric) VALUES (?, ?, ?, 'nobody', ?)",
        (name, f"2026-01-{1 + number % 28:02d}T00:00:00+00:00", spec.model_dump_json(), METRIC),
    )
    runs = [(method, seed) for method in spec.methods for seed in spec.seeds]
    for place, (method, seed) in enumerate(runs):
        state = STATES[(number + place) % len(STATES)]
        result = made_up_result(str(method), seed, (number % 100) / 100, 60)
        result = result.model_copy(update={"resampled": (short(1 / 3),) * RESAMPLES})
        finished = state is RunState.FINISHED
        connection.execute(
            "INSERT INTO runs (run, comparison, number, label, method, seed, state, step, total_steps, result, score) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 60, 60, ?, ?)",
            (
                f"{name}-{place}",
                name,
                place,
                str(method),
                method.model_dump_json(),
                seed,
                state,
                result.model_dump_json() if finished else None,
                result.score[METRIC] if finished else None,
            ),
        )
