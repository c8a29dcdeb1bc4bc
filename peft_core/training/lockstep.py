"""Lockstep: runs of a comparison that advance together, their batches folded into one pass over the backbone.

Each run keeps what is its own: modules, head, loss, hooks, clipping, rate, optimizer, sums. What runs share is the
frozen backbone's work. A run that has finished, failed or been cancelled, or is ahead of the others after a resume,
stays in the fold as a passenger: its rows are computed and nothing of it changes. So the arithmetic of the others is
the same to the last bit, whatever becomes of it (DESIGN.md, Determinism).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from peft_core.methods import Fold, added_tokens, kinship, obstacle, touched
from peft_core.records import StepRecord
from peft_core.training.folding import not_row_by_row
from peft_core.training.loop import Run, checkpointing, precise, prepare_next
from peft_core.training.optimizer import step_all
from peft_core.training.step import (
    Taken,
    begin,
    clip_and_check,
    complete,
    micro_batches,
    note_pass,
    part_loss,
    recorded,
)


def lockstep_groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that can advance together, in the order of each group's first; a run that cannot is a group of one.

    The groups follow from the runs' configs, not from how far they are.
    """
    groups: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        shared = (id(run.attached.backbone), id(run.schedule), added_tokens(run.attached))
        groups.setdefault(number if why_alone(run) else shared, []).append(run)
    return list(groups.values())


def why_alone(run: Run) -> str | None:
    """Why a run cannot advance together with others, a sentence without its full stop; None where it can."""
    reason = obstacle(run.attached)
    if reason is not None:
        return f"{run.spec.label} {reason}"
    mixed = touched(run.attached) & not_row_by_row(run.attached.backbone, run.data[0].train)
    if mixed:
        return f"{run.spec.label} works on {min(mixed)}, which does not take a batch row by row"
    return None


class Together:
    """Runs in lockstep.

    What is folded with what decides how a run's numbers are rounded. So after a resume it must be made of the same runs
    again, those that have ended included; their order does not matter.

    Args:
        runs: a group of `lockstep_groups`, or a part of one.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = sorted(runs, key=lambda run: (kinship(run.attached), run.spec.run))
        for run in runs:
            run.counter.folded = True
        self._first = _Pass(self.runs)
        twice = [run for run in self.runs if run.attached.second_pass is not None]
        self._second = _Pass(twice) if twice else None

    def step(self, live: Collection[str]) -> dict[str, StepRecord | Exception]:
        """One optimizer step of those live runs (run ids) that are at the lowest step number among them.

        The seconds of a run's step are its share of the time: the step's, divided by the runs that took it.

        Returns:
            By run id the record of its step, or the exception that ended it: `RunFailure` where its loss or gradient is
            not finite, else what its own hooks raised.

        Raises:
            Exception: what the pass over all runs raised (memory); then none of them has taken the step.
        """
        candidates = [run for run in self.runs if run.spec.run in live]
        lowest = min(run.step for run in candidates)
        moving = _Moving([run for run in candidates if run.step == lowest])
        moving.each(lambda run: run.counter.prepare(run.schedule.batch(lowest)[0], lowest))
        started = time.perf_counter()
        try:
            moving.begin()
            if moving.runs:
                self._set_aside(moving)
                self._accumulate(moving)
            moving.each(lambda run: clip_and_check(run, moving.taken[run]))
            update_all(moving.runs)
            moving.each(lambda run: complete(run, moving.taken[run]))
        finally:
            for run in self.runs:
                run.optimizer.zero_grad(set_to_none=True)
        share = (time.perf_counter() - started) / max(1, len(moving.runs))
        records = {run.spec.run: recorded(run, moving.taken[run], share) for run in moving.runs}
        return records | moving.ended

    def _set_aside(self, moving: _Moving) -> None:
        """Passengers draw nothing and keep nothing; of several tasks all serve the one whose turn it is."""
        task = moving.runs[0].attached.task
        for run in self.runs:
            run.attached.task = task
            if run not in moving.taken:
                run.attached.train(False)

    def _accumulate(self, moving: _Moving) -> None:
        """Forward and backward over the micro-batches of all runs."""
        lead = moving.runs[0]
        rows, feeding = lead.data[lead.attached.task].train, self.runs[0]
        parts = list(micro_batches(lead, moving.taken[lead]))
        for place, (start, part) in enumerate(parts):
            began = time.perf_counter()
            batch, labels = feeding.feed.take(rows, part)
            moving.wait(time.perf_counter() - began)
            for run in moving.runs:
                run.attached.begin_rows(run.step, start)
            answers, others = self._first.forward(batch), self._forward_again(batch)

            def lose(run: Run) -> None:
                logits = answers[run], others.get(run)  # noqa: B023 (called at once)
                part_loss(run, moving.taken[run], part, labels, logits, start == 0).backward()  # noqa: B023

            moving.each(lose)
            if self._second is not None:
                self._second.backward()
            self._first.backward()
            prepare_next(feeding, lead.step, parts[place + 1 :])
            for run in moving.runs:
                note_pass(run, moving.taken[run], batch)

    def _forward_again(self, batch: dict[str, Tensor]) -> dict[Run, Tensor]:
        """The second pass of the runs that have one."""
        if self._second is None:
            return {}
        seconds = [run.attached.second_pass for run in self._second.runs]
        for second in seconds:
            second.take(1)  # type: ignore[union-attr]
        try:
            return self._second.forward(batch)
        finally:
            for second in seconds:
                second.take(0)  # type: ignore[union-attr]


def update_all(runs: Sequence[Run]) -> None:
    """Every run's optimizer takes its step."""
    step_all(run.optimizer for run in runs)


class _Moving:
    """The runs that take a step, as far as nothing has ended them."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.taken: dict[Run, Taken] = {}
        self.ended: dict[str, Exception] = {}

    def each(self, act: Callable[[Run], Any]) -> None:
        """Calls act for every run; one that it raises for has ended, and the others go on."""
        for run in list(self.runs):
            try:
                act(run)
            except torch.AcceleratorError:
                raise
            except Exception as error:  # noqa: BLE001 (the caller judges it)
                self.ended[run.spec.run] = error
                self.runs.remove(run)

    def begin(self) -> None:
        def first(run: Run) -> None:
            self.taken[run] = begin(run)

        self.each(first)

    def wait(self, seconds: float) -> None:
        """Time that all of them waited for a batch."""
        for run in self.runs:
            self.taken[run].passes.waited += seconds / len(self.runs)


class _Pass:
    """A pass over the backbone for several runs, cut at the logits: each run's loss goes backward to there by itself.

    So a run whose loss fails stays alone with that, and the pass through the backbone is always over the same rows.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self._fold = Fold([run.attached for run in runs])
        self._logits: tuple[Tensor, ...] = ()
        self._leaves: list[Tensor] = []

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._fold.active(), checkpointing(*self.runs):
            yield

    def forward(self, batch: dict[str, Tensor]) -> dict[Run, Tensor]:
        """Every run's logits, from which its loss goes backward as far as here."""
        with self._open(), precise(self.runs[0]):
            self._logits = self._fold.logits(batch)
        self._leaves = [logits.detach().requires_grad_() for logits in self._logits]
        return dict(zip(self.runs, self._leaves, strict=True))

    def backward(self) -> None:
        """From the logits through the backbone. A run without a loss has a gradient of zero."""
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self._leaves]
        logits, self._logits, self._leaves = self._logits, (), []
        if self.runs[0].training.gradient_checkpointing:
            with self._open():
                torch.autograd.backward(logits, gradients)
        else:
            torch.autograd.backward(logits, gradients)
