"""The plan of a comparison at its start: what was asked for, a rule, or the result of a short measurement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from peft_core.records import FEW_STEPS, Offer, Plan
from peft_core.training import plan as plans
from peft_core.training.counting import shape_of_batch
from peft_core.training.loop import Run
from peft_core.training.memory import Needs
from peft_core.training.probe import TIMED, IdleCores, affordable, seconds_alone, with_threads

logger = logging.getLogger(__name__)
Copy = Callable[[Run], Run]


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
        self._runs, self._copy, self._needs, self._offer = runs, copy, needs, offer
        self._cpu = runs[0].attached.device.type == "cpu"
        self._steps = sum(run.total_steps - run.step for run in runs)
        self._threads = plans.threads_for(parameters, offer.cores if offer else None)
        self._ids = [run.spec.run for run in runs]
        self._kinds = {run.spec.run: run.spec.label for run in runs}

    def plan(self, asked: str) -> Plan:
        """The plan, its memory left out. asked: `auto`, or what the comparison asks for."""
        if asked == "workers":
            return self._given_workers()
        if asked == "apart":
            return Plan(threads=self._threads, chosen="given", why=plans.why_given("apart", 1, self._threads, asked))
        options = self._thread_options()
        short = self._steps < FEW_STEPS or min(run.total_steps for run in self._runs) <= 1 + TIMED
        if self._offer is None or short or (self._most_workers() == 1 and len(options) == 1):
            return Plan(threads=self._threads, why=plans.why_rule(self._threads, self._steps, self._offer))
        return self._measured(options, self._offer)

    # --- what can be had ---

    def _thread_options(self) -> list[int]:
        """Numbers of threads that one worker may have, that of the rule first."""
        if not self._cpu or self._offer is None or not self._offer.own_threads:
            return [self._threads]
        return list(dict.fromkeys((self._threads, 1, self._offer.cores)))

    def _most_workers(self) -> int:
        if self._offer is None or not self._cpu or not self._offer.own_threads:
            return 1
        most = min(self._offer.workers, len(self._runs))
        beside = self._needs.beside_model(self._ids) * (1 if most == 1 else 2)
        return plans.workers_that_fit(most, self._needs.backbone, beside, self._needs.available)

    # --- the ways to choose ---

    def _given_workers(self) -> Plan:
        workers = self._most_workers()
        threads = 1 if workers > 1 else self._threads
        return Plan(
            workers=workers,
            threads=threads,
            shares=plans.shares(self._costs(0.0), self._kinds, workers) if workers > 1 else (),
            chosen="given",
            why=plans.why_given("apart", workers, threads, "workers"),
        )

    def _measured(self, options: Sequence[int], offer: Offer) -> Plan:
        started = time.perf_counter()
        by_threads: dict[int, float] = {}
        costs: dict[str, float] = {}
        work = idle = 0.0
        for threads in options:
            if work and not affordable([work / self._steps * offer.cores], work, time.perf_counter() - started):
                break
            watch = IdleCores()
            by_threads[threads] = self._alone(self._runs[0], threads)
            if not work:
                work = by_threads[threads] * self._steps
                costs = self._costs(work, started)
            if threads == 1:
                idle = min(watch.found(), offer.cores - 1)
        mean = sum(costs.values()) / len(costs) / costs[self._ids[0]]
        measured = plans.Measured(
            alone={threads: 1 / (seconds * mean) for threads, seconds in by_threads.items()},
            idle=idle,
            seconds=time.perf_counter() - started,
        )
        return self._decided(measured, costs, self._most_workers(), offer)

    def _decided(self, measured: plans.Measured, costs: Mapping[str, float], workers: int, offer: Offer) -> Plan:
        found = plans.candidates(measured, offer, workers, self._steps)
        chosen = plans.best(found)
        logger.info("plan: %s", ", ".join(f"{one.name} {one.rate:.1f}/s {one.seconds:.1f} s" for one in found))
        return Plan(
            workers=chosen.workers,
            threads=chosen.threads,
            shares=plans.shares(costs, self._kinds, chosen.workers) if chosen.workers > 1 else (),
            chosen="measured",
            why=plans.why_measured(chosen, found),
            measured={one.name: one.rate for one in found},
            assumed={
                "idle_cores": measured.idle,
                "gain_of_a_worker": plans.WORKER_GAIN,
                "start_seconds": offer.start_seconds,
            },
            measuring_seconds=measured.seconds,
        )

    # --- measuring ---

    def _alone(self, run: Run, threads: int) -> float:
        return with_threads(threads, lambda: seconds_alone(self._copy(run)))

    def _costs(self, work: float, started: float | None = None) -> dict[str, float]:
        """What a step of each run costs beside the others: in seconds where there is time to look, else in FLOPs.

        Args:
            work: seconds that all of it is expected to take.
            started: when measuring began; None: nothing is measured.
        """
        kinds = {kind: next(run for run in self._runs if run.spec.label == kind) for kind in self._kinds.values()}
        seconds: dict[str, float] = {}
        for kind, run in kinds.items():
            spent = 0.0 if started is None else time.perf_counter() - started
            if started is None or not affordable([work / self._steps], work, spent) or not self._copy_fits(run):
                break
            seconds[kind] = self._alone(run, self._threads)
        if len(seconds) < len(kinds):
            seconds = {kind: _flops(run) for kind, run in kinds.items()}
        return {run: seconds[kind] for run, kind in self._kinds.items()}

    def _copy_fits(self, run: Run) -> bool:
        """Whether there is room for a run twice."""
        free = self._needs.available
        return free is None or 2 * self._needs.states[run.spec.run] < free


def _flops(run: Run) -> float:
    """Counted for a batch of the first step."""
    task, rows = run.schedule.batch(0)
    run.counter.prepare(task, 0)
    batch = run.data[task].train.batch(rows, run.attached.device)
    return float(run.counter.pass_flops(task, shape_of_batch(batch)).total)
