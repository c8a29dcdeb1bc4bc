"""The plan of a comparison at its start: what was asked for, a rule, or the result of a short measurement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch

from peft_core.records import FEW_STEPS, InputError, Offer, Plan, RunFailure
from peft_core.training import plan as plans
from peft_core.training.counting import shape_of_batch
from peft_core.training.lockstep import lockstep_groups, why_alone
from peft_core.training.loop import Run
from peft_core.training.memory import Needs
from peft_core.training.probe import TIMED, Budget, IdleCores, seconds_alone, seconds_folded, with_threads

logger = logging.getLogger(__name__)
Copy = Callable[[Run], Run]
Groups = tuple[tuple[str, ...], ...]
Execution = Literal["apart", "lockstep"]


class Chooser:
    """Chooses among the ways to execute runs.

    Args:
        runs: all that are to be trained, at their first step.
        copy: makes a run like a given one, at its first step.
        parameters: of the backbone.
        offer: what may be used; None: this process alone, as it is.
    """

    def __init__(
        self, runs: Sequence[Run], copy: Copy, parameters: int | None, needs: Needs, offer: Offer | None
    ) -> None:
        self._runs, self._copy, self._needs, self._offer = list(runs), copy, needs, offer
        self._own_threads = offer is not None and offer.own_threads and runs[0].attached.device.type == "cpu"
        self._cores = offer.cores if offer is not None and self._own_threads else 1
        self._threads = plans.threads_for(parameters, offer.cores if offer else None)
        self._ids = [run.spec.run for run in runs]
        self._kinds = {run.spec.run: run.spec.label for run in runs}
        self._alone = list(dict.fromkeys(reason for run in runs if (reason := why_alone(run))))

    def plan(self, asked: str) -> Plan:
        """The plan, its memory left out. asked: `auto`, or what the comparison asks for."""
        if asked == "apart":
            return self._made("apart", 1, self._threads, "given")
        if asked == "lockstep":
            threads = self._cores if self._own_threads else self._threads
            return self._made("lockstep", 1, threads, "given") if self._groups() else self._in_turns(asked, threads)
        if asked == "workers":
            workers = self._most_workers()
            return self._made("apart", workers, 1, "given") if workers > 1 else self._in_turns(asked, self._threads)
        steps = self._work().steps
        short = steps < FEW_STEPS or min(run.total_steps for run in self._runs) <= 1 + TIMED
        if self._offer is None or short or len(self._runs) == 1:
            return Plan(threads=self._threads, why=plans.why_rule(self._threads, steps, self._offer))
        try:
            return self._measured(self._offer)
        except torch.AcceleratorError:
            raise
        except (RunFailure, InputError, RuntimeError, MemoryError) as error:  # the run itself will say so
            logger.warning("the steps of a run could not be measured: %s", error)
            return Plan(threads=self._threads, why=plans.why_not_measured(self._threads))

    def _in_turns(self, asked: str, threads: int) -> Plan:
        """For a comparison that asks for what cannot be had here."""
        return Plan(threads=threads, chosen="given", why=plans.why_not_as_asked(asked, threads, self._alone))

    def _made(
        self,
        execution: Execution,
        workers: int,
        threads: int,
        chosen: Literal["given", "measured"],
        costs: Mapping[str, float] | None = None,
    ) -> Plan:
        dealt = plans.shares(costs or self._counted(), self._kinds, workers) if workers > 1 else ()
        return Plan(
            execution=execution,
            workers=workers,
            threads=threads,
            shares=dealt,
            groups=self._groups(dealt) if execution == "lockstep" else (),
            chosen=chosen,
            why=plans.why_given(execution, workers, threads, self._alone),
        )

    # --- what can be had ---

    def _most_workers(self) -> int:
        """As many as are offered, have a run each and fit into memory together, each with its largest run."""
        if self._offer is None or not self._own_threads:
            return 1
        most = min(self._offer.workers, len(self._runs))
        beside = self._needs.beside_model(self._ids) + (most - 1) * self._needs.activations(self._ids)
        return plans.workers_that_fit(most, self._needs.backbone, beside, self._needs.available)

    def _groups(self, shares: Sequence[Sequence[str]] = ()) -> Groups:
        """Ids of the runs of each share that advance together."""
        members = [[run for run in self._runs if run.spec.run in share] for share in shares or [self._ids]]
        found = [group for runs in members for group in lockstep_groups(runs) if len(group) > 1]
        return tuple(tuple(run.spec.run for run in group) for group in found)

    def _fits(self, groups: Groups) -> bool:
        free = self._needs.available
        return free is None or self._needs.beside_model(self._ids, groups) <= free

    def _work(self) -> plans.Work:
        """A pass without gradients over a batch counts as a third of a step."""
        steps = sum(run.total_steps - run.step for run in self._runs)
        first = self._runs[0]
        batches = sum(len(task.evaluation) for task in first.data) / first.training.batch_size
        times = sum((run.total_steps - run.step) // run.eval_every + 1 for run in self._runs)
        return plans.Work(steps, times * batches / 3)

    # --- measuring ---

    def _measured(self, offer: Offer) -> Plan:
        work, workers = self._work(), self._most_workers()
        budget = Budget()
        watch = IdleCores()
        alone = {self._threads: self._seconds(self._runs[0], self._threads)}
        budget.expects(alone[self._threads] * (work.steps + work.evaluations))
        costs = self._costs(alone[self._threads], budget)
        idle = watch.found() if self._threads == 1 else 0.0
        for threads in (1, self._cores):
            if self._own_threads and threads not in alone and budget.allows(alone[self._threads] * self._cores):
                watch = IdleCores()
                alone[threads] = self._seconds(self._runs[0], threads)
                idle = watch.found() if threads == 1 else idle
        mean = sum(costs.values()) / len(costs) / costs[self._ids[0]]
        by_run = {run: cost / costs[self._ids[0]] for run, cost in costs.items()}
        dealt = plans.shares(costs, self._kinds, workers)
        share = None
        if workers > 1 and 1 in alone:
            share = self._folded(dealt[0], 1, alone[1], by_run, budget)
        folded = {} if share is None else {1: share}
        most = max(alone)
        rate = self._folded(self._ids, most, alone[most], by_run, budget) if most not in folded else None
        folded |= {} if rate is None else {most: rate}
        measured = plans.Measured(
            alone={threads: 1 / (seconds * mean) for threads, seconds in alone.items()},
            folded=folded,
            share=share,
            idle=min(idle, offer.cores - 1),
        )
        return self._decided(measured, costs, workers, work, budget, offer)

    def _decided(
        self,
        measured: plans.Measured,
        costs: Mapping[str, float],
        workers: int,
        work: plans.Work,
        budget: Budget,
        offer: Offer,
    ) -> Plan:
        found = plans.candidates(measured, offer, workers, work)
        chosen = plans.best(found)
        logger.info("plan: %s", "; ".join(f"{one.name}: {one.rate:.3g}/s, {one.seconds:.3g} s" for one in found))
        made = self._made(chosen.execution, chosen.workers, chosen.threads, "measured", costs)
        assumed = {
            "idle_cores": measured.idle,
            "gain_of_a_worker": plans.WORKER_GAIN,
            "start_seconds": offer.start_seconds,
        }
        told = {
            "why": plans.why_measured(chosen, found, self._alone),
            "measured": {one.name: one.rate for one in found},
            "assumed": assumed if workers > 1 else {},
            "measuring_seconds": budget.spent,
        }
        return made.model_copy(update=told)

    def _seconds(self, run: Run, threads: int) -> float:
        return with_threads(threads, lambda: seconds_alone(self._copy(run)))

    def _folded(
        self, ids: Sequence[str], threads: int, alone: float, costs: Mapping[str, float], budget: Budget
    ) -> float | None:
        """Steps a second of these runs where those that can advance together do; None where that is not to be had.

        Args:
            alone: seconds of a step of the first run, with as many threads.
            costs: of every run's step beside the first run's.
        """
        groups = self._groups([ids])
        expected = sum(alone * costs[run] for group in groups for run in group)
        if not groups or not self._fits(groups) or not budget.allows(expected):
            return None
        runs = {run.spec.run: run for run in self._runs}
        seconds = sum(alone * costs[run] for run in ids if not any(run in group for group in groups))
        try:
            for group in groups:
                copies = [self._copy(runs[run]) for run in group]
                seconds += with_threads(threads, partial(seconds_folded, copies))
        except (RunFailure, RuntimeError, MemoryError) as error:
            logger.info("no measurement in lockstep: %s", error)
            return None
        return len(ids) / seconds

    def _costs(self, first: float, budget: Budget) -> dict[str, float]:
        """What a step of each run costs beside the others: in seconds where there is time to look, else in FLOPs."""
        seconds: dict[str, float] = {}
        for kind, run in self._by_kind().items():
            if not budget.allows(first) or not self._copy_fits(run):
                return self._counted()
            seconds[kind] = self._seconds(run, self._threads)
        return {run: seconds[kind] for run, kind in self._kinds.items()}

    def _counted(self) -> dict[str, float]:
        """FLOPs of a batch of the first step."""
        flops = {kind: _flops(run) for kind, run in self._by_kind().items()}
        return {run: flops[kind] for run, kind in self._kinds.items()}

    def _by_kind(self) -> dict[str, Run]:
        """A run of each kind; those that their seed alone tells apart are of one."""
        return {run.spec.label: run for run in reversed(self._runs)}

    def _copy_fits(self, run: Run) -> bool:
        """Whether there is room for a run twice."""
        free = self._needs.available
        return free is None or 2 * self._needs.states[run.spec.run] < free


def _flops(run: Run) -> float:
    task, rows = run.schedule.batch(0)
    run.counter.prepare(task, 0)
    batch = run.data[task].train.batch(rows, run.attached.device)
    return max(1.0, float(run.counter.pass_flops(task, shape_of_batch(batch)).total))
