"""A supervisor and an engine made by hand, for tests of the page that train nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydantic import BaseModel, Field

from peft_core.records import (
    BudgetLock,
    ComparisonRow,
    ComparisonSpec,
    Frozen,
    InputError,
    MethodSpec,
    RunRow,
    RunState,
    TrainingConfig,
    View,
    checked,
    run_specs,
)
from tests.report.sample import METRIC, sample_result, step_events
from ui.form import COMPARISON_FIELDS, fields_of


class LowRank(Frozen):
    rank: int = Field(8, ge=1, le=8192, description="inner dimension")
    alpha: float | None = Field(None, gt=0, description="scale is alpha / rank")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak rate")


class Boosted(LowRank):
    d: int = Field(2, ge=1, le=64, description="parallel tied modules")
    sparsity: float = Field(0.5, ge=0, lt=1, description="fraction of zeros")
    masks: str = Field("random", description="kind of masks")


CONFIGS: dict[str, type[BaseModel]] = {"lora": LowRank, "capaboost_lora": Boosted}


class StandInEngine:
    def prepare(self) -> None:
        return None

    def alone(self) -> AbstractContextManager[Any]:
        return threading.RLock()

    def catalogue(self) -> dict[str, Any]:
        methods = [
            {"id": name, "title": name, "family": "low-rank", "source": "", "fields": fields_of(config)}
            for name, config in CONFIGS.items()
        ]
        task = {"title": "", "description": "A task.", "metric": METRIC, "train_rows": 4000, "eval_rows": 1000}
        return {
            "methods": methods,
            "models": [{"id": "tiny-text", "parameters": 1, "modality": "text", "origin": "embedded"}],
            "tasks": [
                {"id": "acceptability", "modality": "text", "options": [], **task},
                {"id": "rank_probe", "modality": "any", "options": [{"name": "rank", "default": "16"}], **task},
            ],
            "training": fields_of(TrainingConfig),
            "comparison": fields_of(ComparisonSpec, COMPARISON_FIELDS),
        }

    def benchmarks(self) -> list[dict[str, Any]]:
        return [{"id": "glue/cola", "modality": "text", "at_hand": False, "options": []}]

    def presets(self, task: str) -> list[dict[str, Any]]:
        return [{"name": "paper/model/lora", "task": task}] if task == "glue/cola" else []

    def preview(self, model: str, task: str, options: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
        asked = {"model": model, "task": task, "options": dict(options), "max_length": max_length}
        return {"columns": ["text", "label"], "problems": [], "asked": asked, "lengths": {"text": float("nan")}}

    def task_origin(self, task: str) -> str:
        if task.startswith("hub:"):
            return "hub"
        return "embedded" if task in ("acceptability", "rank_probe", "glue/cola") else "local"

    def resolve(self, spec: MethodSpec) -> BaseModel:
        if spec.id not in CONFIGS:
            raise InputError("method", spec.id, "it must be one of " + ", ".join(CONFIGS))
        return checked(CONFIGS[spec.id], spec.options, f"{spec.id}.")

    def check(self, spec: ComparisonSpec) -> None:
        if spec.training.batch_size > 4000:
            raise InputError("training.batch_size", spec.training.batch_size, "it must be at most 4000")

    def budget(self, model: str, methods: Sequence[MethodSpec], tasks: int = 1) -> list[dict[str, Any]]:
        return [{"trainable": 8192, "trainable_percent": 1.0, "rank_bound": 8} for _ in methods]

    def lock(self, spec: ComparisonSpec, kind: str, to: str | None) -> ComparisonSpec:
        methods, record = self.locked(spec.model, spec.methods, kind, to)
        return spec.model_copy(update={"methods": tuple(methods), "lock": record})

    def locked(
        self, model: str, methods: Sequence[MethodSpec], kind: str, to: str | None, tasks: int = 1
    ) -> tuple[Sequence[MethodSpec], BudgetLock]:
        """Gives every method rank 1."""
        if kind == "weight":
            raise InputError("lock", kind, "it must be parameters, rank or flops")
        moved = [MethodSpec(id=method.id, options={**method.options, "rank": 1}) for method in methods]
        record = BudgetLock(
            kind="rank", to=to or str(methods[0]), asked=tuple(methods), changes=tuple(f"{m}: moved." for m in methods)
        )
        return moved, record


class StandInRuns:
    """Comparisons that pretend to train, a step of every run each `pause` seconds."""

    def __init__(self, pause: float = 0.03) -> None:
        self.pause, self.lock = pause, threading.Lock()
        self.rows: dict[str, ComparisonRow] = {}
        self.runs: dict[str, list[RunRow]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}

    def submit(self, spec: ComparisonSpec) -> str:
        name = f"s{len(self.rows) + 1}"
        with self.lock:
            self.rows[name] = ComparisonRow(
                id=name,
                created="2026-01-02T03:04:05Z",
                number=len(self.rows) + 1,
                spec=spec,
                state=RunState.RUNNING,
                metric=METRIC,
                baseline_score=0.0,
                plan={"device": "cpu"},
            )
            self.runs[name] = [
                RunRow(
                    run=run.run,
                    label=run.label,
                    method=run.method,
                    config=dict(run.method.options),
                    seed=run.seed,
                    state=RunState.RUNNING,
                )
                for run in run_specs(name, spec)
            ]
            self.events[name] = []
        threading.Thread(target=self._train, args=(name,), daemon=True).start()
        return name

    def _train(self, name: str) -> None:
        total = self.rows[name].spec.training.total_steps(4000)
        every = self.rows[name].spec.training.eval_interval(total)
        for step in range(1, total + 1):
            time.sleep(self.pause)
            with self.lock:
                if self.rows[name].state is not RunState.RUNNING:
                    return
                for run in self.runs[name]:
                    self._emit(name, step_events(run.run, run.label, run.seed, step, every))
                update = {"progress": step / total, "eta_seconds": (total - step) * self.pause}
                self.rows[name] = self.rows[name].model_copy(update=update)
        self._end(name, RunState.FINISHED, total)

    def _emit(self, name: str, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.events[name].append({**event, "seq": len(self.events[name]) + 1})

    def _end(self, name: str, state: RunState, steps: int) -> None:
        with self.lock:
            self.rows[name] = self.rows[name].model_copy(update={"state": state, "progress": 1.0, "eta_seconds": None})
            for place, run in enumerate(self.runs[name]):
                result = (
                    sample_result(run.label, run.seed, 0.6 + 0.01 * place, steps)
                    if state is RunState.FINISHED
                    else None
                )
                self.runs[name][place] = run.model_copy(update={"state": state, "result": result})
                self._emit(name, [{"event": "state", "run": run.run, "step": steps, "state": str(state)}])

    def cancel(self, comparison_id: str) -> None:
        self._end(comparison_id, RunState.CANCELLED, 0)

    def resume(self, comparison_id: str) -> None:
        raise InputError("id", comparison_id, "a stand-in resumes nothing")

    def view(self, comparison_id: str, after: int = 0) -> View:
        with self.lock:
            if comparison_id not in self.rows:
                raise InputError("id", comparison_id, "there is no such comparison")
            events = self.events[comparison_id]
            return View(
                seq=len(events),
                comparison=self.rows[comparison_id],
                runs=tuple(self.runs[comparison_id]),
                events=events[after:],
            )

    def comparisons(self) -> list[ComparisonRow]:
        return list(self.rows.values())

    def recent(self, newest: int) -> list[ComparisonRow]:
        return sorted(self.rows.values(), key=lambda row: row.number, reverse=True)
