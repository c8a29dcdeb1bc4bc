"""An imported adapter on the rows of a task that it is given: its scores as those of a run that was trained here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft_core.backbones import fetch_model, meta_backbone
from peft_core.export.importing import Imported
from peft_core.export.recipe import rebuild
from peft_core.metrics.resampling import resampled_scores
from peft_core.records import ComparisonSpec, EvalRecord, InputError, RunResult
from peft_core.tasks import TaskInfo
from peft_core.training.data import TaskData, chosen_tasks, load_data, provenance
from peft_core.training.environment import environment, pick_device
from peft_core.training.evaluate import evaluate, mean_score, primary_metric
from peft_core.training.native import TaskFacts
from peft_core.training.origins import described_data, weights_sha256
from peft_core.training.problems import Evaluation

OF_TRAINING = "; the score is that of the last step"
"""What a protocol says of runs that were trained here."""


@dataclass(frozen=True)
class Scored:
    """What an adapter answers on the evaluation rows. environment: where that was, on which weights and rows."""

    evaluation: Evaluation
    metric: str
    baseline: float | None
    split: str
    resampled: tuple[float | None, ...] | None
    environment: dict[str, Any]

    def record(self, run: str, step: int) -> EvalRecord:
        return EvalRecord(run=run, step=step, scores=self.evaluation.scores, loss=self.evaluation.loss, seconds=0.0)

    def on(self, result: RunResult) -> RunResult:
        """The result with these scores."""
        found = {
            "score": self.evaluation.scores,
            "baseline_score": self.baseline,
            "split": self.split,
            "eval_loss": self.evaluation.loss,
            "resampled": self.resampled,
        }
        return result.model_copy(update=found)


def for_task(imported: Imported, spec: ComparisonSpec) -> Imported:
    """The adapter as one for the tasks of the comparison.

    Raises:
        InputError: no such task, or one whose answers its head does not give.
    """
    infos = [task.info for task, _ in chosen_tasks(spec)]
    before = imported.recipe.tasks
    if len(infos) != len(before):
        raise InputError("task", spec.task, f"the adapter has heads for {len(before)} tasks, so it must name as many")
    for info, old in zip(infos, before, strict=True):
        _check_answers(imported, info, old)
    facts = tuple(TaskFacts.of(info) for info in infos)
    return replace(imported, recipe=imported.recipe.model_copy(update={"tasks": facts}))


def _check_answers(imported: Imported, info: TaskInfo, old: TaskFacts) -> None:
    if (info.problem, info.outputs) != (old.problem, old.outputs):
        model = imported.recipe.model
        shape = meta_backbone(f"{model.id}@{model.commit}" if model.commit else model.id, info.outputs, info.problem)
        if shape.head_parameters() or old.problem != "generation":
            asked, given = (_answers(facts.problem, facts.outputs) for facts in (info, old))
            raise InputError("task", info.id, f"it asks for {asked} and the adapter's head gives {given}")
    elif old.labels is not None and info.labels != old.labels:
        raise InputError("task", info.id, f"the adapter's classes are {', '.join(old.labels)}, and those of it are not")


def _answers(problem: str, outputs: int) -> str:
    return {
        "classification": f"{outputs} classes",
        "regression": "a number",
        "span": "spans",
        "generation": "text",
    }[problem]


def score(imported: Imported, folder: Path, spec: ComparisonSpec) -> Scored:
    """Reads the backbone's weights and the tasks' rows, and scores the adapter.

    Args:
        imported: as `for_task` gave it.
        folder: as its `write` has filled it.

    Raises:
        InputError: weights or rows that cannot be had.
    """
    recipe = imported.recipe
    trained = rebuild(recipe, folder, recipe.tasks[0].id)
    data = load_data(spec, trained.backbone)
    found, infos = evaluate(trained.attached, data, spec.training), [task.info for task in data]
    source = fetch_model(recipe.model.id, recipe.model.commit)
    described = source.described() | ({} if source.commit else {"weights_sha256": weights_sha256(source.folder)})
    return Scored(
        found,
        primary_metric(infos),
        mean_score([task.problem.baseline(task.info, task.train, task.evaluation) for task in data]),
        _split(imported, data),
        resampled_scores(found.outcomes, spec.data_seed) if found.outcomes else None,
        {
            **environment(pick_device("cpu")),
            "model": described,
            "data": described_data(provenance(spec), data),
        },
    )


def _split(imported: Imported, data: tuple[TaskData, ...]) -> str:
    said = ((len(task.evaluation), task.info.protocol.removesuffix(OF_TRAINING)) for task in data)
    rows = " | ".join(f"{count} evaluation rows; {protocol}" for count, protocol in said)
    order = "" if imported.labelled else "; nobody noted its classes, so they are taken in the task's order"
    return f"imported, and scored here on {rows}{order}"
