"""A worker's runs of a comparison on one copy of the backbone, in the way that the comparison's plan says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peft_core.backbones import load_backbone, model_info
from peft_core.records import (
    Backbone,
    ComparisonSpec,
    Emit,
    Offer,
    Plan,
    RunSpec,
    RunState,
    StateRecord,
    run_specs,
)
from peft_core.training import plan as plans
from peft_core.training.begun import Starts
from peft_core.training.choice import Chooser
from peft_core.training.data import TaskData, chosen_tasks, load_data, provenance
from peft_core.training.environment import environment, pick_device
from peft_core.training.evaluate import mean_score, primary_metric
from peft_core.training.loop import Run
from peft_core.training.memory import memory_needs, require_memory
from peft_core.training.origins import described_data, weights_sha256
from peft_core.training.schedule import Schedule
from peft_core.training.source import fetch_weights
from peft_core.training.start import new_run, resumed
from peft_core.training.turns import FAILURES, Alone, InStep, Notice, Stop, Told, reason

if TYPE_CHECKING:
    from peft_core.backbones import ModelSource
    from peft_core.backbones._backbone import TransformerBackbone

Load = Callable[[ComparisonSpec, Backbone], tuple[TaskData, ...]]


def train_comparison(
    spec: ComparisonSpec,
    runs: Sequence[RunSpec],
    *,
    folder: Path,
    emit: Emit,
    notice: Notice,
    stop: Stop,
    resume: bool = False,
    load: Load = load_data,
    plan: Plan | None = None,
    share: int = 0,
    offer: Offer | None = None,
) -> None:
    """Trains runs of one comparison in turns and reports everything through `emit` and `notice`.

    Args:
        runs: those of the comparison's runs that are to train now; with a plan, those of the share.
        folder: each run's checkpoints and adapter lie in ``folder/<run id>``.
        notice: facts on the comparison as they become known (keys of ComparisonRow; `active`: the runs at work).
        stop: asked between steps whether a run is to end; it ends cancelled, with a checkpoint.
        resume: continue every run from its last whole checkpoint.
        load: reads and encodes the rows; what it gives as evaluation rows is scored.
        plan: as it was chosen before. None: it is chosen now and told, and then only the runs of its first share are
            trained: whoever gave the offer has the others trained elsewhere.
        share: number of this worker's share.
        offer: what a plan may use of the machine. None: this process alone, which then trains all runs.

    Raises:
        InputError, RunFailure: the model or the data cannot be used, so that no run can start.
    """
    scene = _scene(spec, folder, notice, load, plan, offer)
    told = Told(emit, notice, stop, scene.baseline)
    members = _started(runs, scene, told, folder, resume)
    if not members:
        return
    if plan is None:
        plan = _chosen(spec, members, scene, offer)
        notice({"plan": plan.model_dump(mode="json")})
        members = [run for run in members if plan.share_of(run.spec.run) == share]
        passengers = []
    else:
        passengers = _passengers(plan, members, scene, folder)
        require_memory([*members, *passengers], spec.training, plan.groups)
        if offer is not None and not offer.own_cores and (said := plans.fewer_cores(plan, offer.cores)):
            notice({"message": said})
    torch.set_num_threads(plan.threads)
    notice({"environment": scene.described | {"threads": plan.threads}})
    for run in members:
        emit(StateRecord(run=run.spec.run, step=run.step, state=RunState.RUNNING))
    turns = _turns(plan, members, passengers)
    while turns:
        turns = [turn for turn in turns if turn.take(told)]


@dataclass(frozen=True)
class _Scene:
    """What all runs share. parameters: of the backbone; described: the environment, model and data included."""

    parameters: int | None
    backbone: TransformerBackbone
    data: tuple[TaskData, ...]
    schedule: Schedule
    baseline: float | None
    described: dict[str, Any]
    starts: Starts

    def copy(self, run: Run) -> Run:
        """A run like a given one, at its first step, for a measurement."""
        return self.new(run.spec)

    def new(self, spec: RunSpec, folder: Path | None = None) -> Run:
        """A run at its first step. folder: its own."""
        return new_run(spec, self.backbone, self.data, self.schedule, folder, self.starts)


def _scene(
    spec: ComparisonSpec, folder: Path, notice: Notice, load: Load, plan: Plan | None, offer: Offer | None
) -> _Scene:
    device = pick_device(spec.training.device)
    source = fetch_weights(spec.model, folder, notice)
    parameters = model_info(source.id).parameters
    torch.set_num_threads(plan.threads if plan else plans.threads_for(parameters, offer.cores if offer else None))
    infos = [task.info for task, _ in chosen_tasks(spec)]
    described = {**environment(device), "model": _model(source)}
    notice({"environment": described, "metric": primary_metric(infos)})
    backbone = load_backbone(
        source.id,
        outputs=infos[0].outputs,
        problem=infos[0].problem,
        device=str(device),
        labels=infos[0].labels,
    )
    data = load(spec, backbone)
    described |= {"data": described_data(provenance(spec), data)}
    notice({"environment": described})
    base = mean_score([task.problem.baseline(task.info, task.train, task.evaluation) for task in data])
    notice({"baseline_score": base})
    lengths = [task.train.lengths() for task in data]
    schedule = Schedule(lengths, spec.training.batch_size, spec.data_seed, spec.training.temperature)
    return _Scene(parameters, backbone, data, schedule, base, described, Starts(folder, described["model"]))


def _model(source: ModelSource) -> dict[str, str]:
    """What is recorded of the weights: a commit of the Hub says which they are, elsewhere their checksum does."""
    return source.described() | ({} if source.commit else {"weights_sha256": weights_sha256(source.folder)})


def _started(runs: Sequence[RunSpec], scene: _Scene, told: Told, folder: Path, resume: bool) -> list[Run]:
    """The runs whose method could be attached; how the others ended is reported."""
    made = []
    for spec in runs:
        if told.stop(spec.run):
            told.emit(StateRecord(run=spec.run, step=0, state=RunState.CANCELLED))
            continue
        told.notice({"active": spec.run})
        try:
            run = scene.new(spec, folder / spec.run)
            for sentence in resumed(run) if resume else ():
                told.notice({"message": sentence})
        except torch.AcceleratorError:
            raise
        except FAILURES as error:
            told.emit(StateRecord(run=spec.run, step=0, state=RunState.FAILED, error=reason(error)))
            continue
        told.notice({"run": spec.run, "config": run.config.model_dump(), "total_steps": run.total_steps})
        made.append(run)
    return made


def _passengers(plan: Plan, members: Sequence[Run], scene: _Scene, folder: Path) -> list[Run]:
    """The other runs of the members' groups, which do not train now, as far as they got."""
    own = [run.spec.run for run in members]
    wanted = {run for group in plan.groups_with(own) for run in group if run not in own}
    made = []
    for spec in run_specs(own[0].rpartition("-")[0], members[0].spec.comparison) if wanted else ():
        if spec.run in wanted:
            run = scene.new(spec, folder / spec.run)
            resumed(run)
            made.append(run)
    return made


def _turns(plan: Plan, members: Sequence[Run], passengers: Sequence[Run]) -> list[Alone | InStep]:
    """Who takes turns with whom, in the order of the runs."""
    turns: dict[tuple[str, ...], Alone | InStep] = {}
    for run in members:
        group = next((group for group in plan.groups if run.spec.run in group), ())
        if not group:
            turns[(run.spec.run,)] = Alone(run)
        elif group not in turns:
            live, beside = ([run for run in runs if run.spec.run in group] for runs in (members, passengers))
            turns[group] = InStep(live, beside)
    return list(turns.values())


def _chosen(spec: ComparisonSpec, members: Sequence[Run], scene: _Scene, offer: Offer | None) -> Plan:
    """A plan for these runs that the memory holds, as far as this worker's share goes."""
    needs = memory_needs(members, spec.training)
    plan = Chooser(members, scene.copy, scene.parameters, needs, offer).plan(spec.plan)
    own = [run for run in members if plan.share_of(run.spec.run) == 0]
    return plan.model_copy(update={"memory_bytes": require_memory(own, spec.training, plan.groups, needs)})
