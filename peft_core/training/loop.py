"""One run: `train` yields records, step by step. It names no method; it calls what an attachment gives.

Order of a step (METHODS.md): forward, loss and penalty, backward, hooks, clip, optimizer, hooks, schedule, zero.
A suspended run leaves nothing in the backbone, so several runs can take turns on one copy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peft_core.methods import Attached, MethodConfig, SecondPass, fastest
from peft_core.metrics.resampling import Outcomes
from peft_core.records import EvalRecord, Event, LayerRank, RankOf, RankRecord, RunSpec, StepRecord
from peft_core.training.accounting import same_products
from peft_core.training.captured import Captured, captured_for, widened
from peft_core.training.checkpoint import Checkpoint, save_checkpoint
from peft_core.training.counting import StepCounter
from peft_core.training.data import TaskData
from peft_core.training.evaluate import evaluate, layer_ranks, primary_metric
from peft_core.training.feed import Feed
from peft_core.training.memory import no_state
from peft_core.training.meter import Meter
from peft_core.training.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    split_groups,
)
from peft_core.training.schedule import Schedule
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
from peft_core.training.totals import Totals

CHECKPOINT_SECONDS, LATEST_SECONDS = 5.0, 30.0
"""Training time of a run from one checkpoint to the next: the least at an evaluation, and the most between two."""


class Run:
    """A run while it trains: what it is made of, and how far it is.

    Args:
        attached: the method's attachment, its head included.
        data: the comparison's tasks.
        schedule: task and rows of every step, shared by all runs of the comparison.
        folder: where its checkpoints go; None for none.
        begun: what it began with, where that is what another run has learned.
    """

    def __init__(
        self,
        spec: RunSpec,
        config: MethodConfig,
        attached: Attached,
        data: Sequence[TaskData],
        schedule: Schedule,
        folder: Path | None = None,
        begun: str | None = None,
    ) -> None:
        self.spec, self.config, self.attached, self.data, self.schedule = spec, config, attached, data, schedule
        self.folder, self.begun = folder, begun
        self.training = spec.comparison.training
        self.metric = primary_metric([task.info for task in data])
        self.total_steps = self.training.total_steps(sum(len(task.train) for task in data))
        self.eval_every = self.training.eval_interval(self.total_steps)
        for hook in attached.on_start:
            hook(self.total_steps)
        self._build_optimizer()
        self.captured = captured_for(self, partial(_passes, self))
        self.step = 0
        self.totals, self.meter, self.feed = Totals(), Meter(attached.device), Feed(attached.device)
        same, merges = same_products(spec, config), self.training.precision == "fp32"
        tasks = [task.train for task in data]
        self.counter = StepCounter(attached, tasks, same, partial(checkpointing, self), merges)
        self.evaluations: list[tuple[int, dict[str, float | None]]] = []
        self.eval_losses: dict[int, float | None] = {}
        self.ranks: tuple[int, RankOf, tuple[LayerRank, ...]] | None = None
        self.best: tuple[int, float] | None = None
        self.outcomes: tuple[Outcomes, ...] | None = None
        self.best_outcomes: tuple[Outcomes, ...] | None = None
        self.best_tensors: dict[str, Tensor] = {}
        self.best_extra: dict[str, Any] | None = None
        self.checkpointed_at = 0.0

    @property
    def seconds(self) -> float:
        """Training time so far, evaluations left out."""
        return self.totals.seconds

    @property
    def peak_rate(self) -> float:
        given = self.training.learning_rate
        return given if given is not None else self.config.learning_rate

    @property
    def weight_decay(self) -> float:
        given = self.training.weight_decay
        return given if given is not None else self.config.weight_decay

    @property
    def validates(self) -> bool:
        """Whether the best evaluation is chosen on rows apart from the reported ones."""
        return all(task.validation is not None for task in self.data)

    @property
    def task_ids(self) -> tuple[str, ...]:
        return tuple(task.info.id for task in self.data)

    def _build_optimizer(self) -> None:
        self.parameters: dict[str, nn.Parameter] = self.attached.trainable()
        grows = self.attached.load_extra_state is not None
        self.optimizer = make_optimizer(self.parameters, self.weight_decay, self.attached.groups, grows)

    def take_up_growth(self) -> None:
        """Lets parameters that the method has added or dropped in this step train, or rest, from the next one on."""
        now = self.attached.trainable()
        if now.keys() == self.parameters.keys():
            return
        new = {name: parameter for name, parameter in now.items() if name not in self.parameters}
        for group in split_groups(new, self.weight_decay, self.attached.groups):
            self.optimizer.add_param_group(group)
        self.optimizer.retain(now.values())
        self.parameters = now

    def evaluation_due(self) -> bool:
        """Whether this step's evaluation is still to come."""
        if self.evaluations and self.evaluations[-1][0] == self.step:
            return False
        return self.step % self.eval_every == 0 or self.step == self.total_steps

    # --- saving and resuming ---

    def save(self) -> None:
        """Writes a checkpoint of this moment, where the run has a folder."""
        if self.folder is None:
            return
        self.meter.add_to(self.totals)
        tensors: dict[str, Tensor] = {f"parameter.{name}": parameter for name, parameter in self.parameters.items()}
        tensors |= optimizer_tensors(self.optimizer, self.parameters)
        tensors |= {f"buffer.{name}": value for name, value in self.attached.persistent_buffers().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_tensors.items()}
        state: dict[str, Any] = {
            "totals": self.totals.state(),
            "evaluations": self.evaluations,
            "eval_losses": list(self.eval_losses.items()),
            "best": self.best,
            "best_extra": self.best_extra,
            "extra": self.extra_state(),
            "ways": fastest.choices(),
            "captured": self.captured.decisions() if self.captured is not None else [],
        }
        save_checkpoint(self.folder / "checkpoints", self.step, state, tensors)
        self.checkpointed_at = self.seconds

    def save_if_due(self, *, evaluated: bool = False) -> None:
        """Writes a checkpoint where the last one is old enough and there are steps to come."""
        age = self.seconds - self.checkpointed_at
        if age >= (CHECKPOINT_SECONDS if evaluated else LATEST_SECONDS) and self.step < self.total_steps:
            self.save()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint, bit for bit."""
        state = checkpoint.state
        fastest.take_over(state.get("ways", {}))
        if self.captured is not None:
            self.captured.take_over(state.get("captured", []))
        if self.attached.load_extra_state and state["extra"] is not None:
            self.attached.load_extra_state(state["extra"])
            self._build_optimizer()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(checkpoint.tensors[f"parameter.{name}"])
            for name, buffer in self.attached.persistent_buffers().items():
                buffer.copy_(checkpoint.tensors[f"buffer.{name}"])
        load_optimizer_tensors(self.optimizer, self.parameters, checkpoint.tensors)
        self.step, self.totals = checkpoint.step, Totals.of(state["totals"])
        self.evaluations = [(step, scores) for step, scores in state["evaluations"]]
        self.eval_losses = dict(state["eval_losses"])
        self.best = tuple(state["best"]) if state["best"] else None
        self.best_extra = state.get("best_extra")
        self.best_tensors = {
            name.removeprefix("best."): value for name, value in checkpoint.tensors.items() if name.startswith("best.")
        }
        self.checkpointed_at = self.seconds

    def extra_state(self) -> dict[str, Any] | None:
        """What the method keeps beyond its parameters, now."""
        return self.attached.extra_state() if self.attached.extra_state else None

    def select_best(self) -> None:
        """Puts back the parameters of the best evaluation, and those only that were there."""
        if self.best_extra is not None and self.attached.load_extra_state:
            self.attached.load_extra_state(self.best_extra)
            self.parameters = self.attached.trainable()
        with torch.no_grad():
            for name, value in self.best_tensors.items():
                self.parameters[name].copy_(value)


def train(run: Run) -> Iterator[Event]:
    """Trains a run to its end and yields its records: an evaluation before the first step, every N steps, at the end.

    Raises:
        RunFailure: the loss or the gradient is not finite any more. The last finite checkpoint stands.
    """
    while True:
        yield from evaluated(run)
        if run.step == run.total_steps:
            break
        yield _step(run)
    finish(run)


def evaluated(run: Run) -> Iterator[Event]:
    """The evaluation that is due at this step, if one is, and the checkpoint that is."""
    if not run.evaluation_due():
        run.save_if_due()
        return
    yield from _evaluated(run)
    run.save_if_due(evaluated=True)


def finish(run: Run) -> None:
    """Leaves a run that has taken all its steps as it is to be stored."""
    if run.training.selection == "best":
        run.select_best()


def _step(run: Run) -> StepRecord:
    """One optimizer step on the batch of this step number."""
    run.counter.prepare(run.schedule.batch(run.step)[0], run.step)
    started = time.perf_counter()
    taken = begin(run)
    if run.captured is not None:
        _captured(run, run.captured, taken)
    else:
        with run.attached.active(), checkpointing(run):
            _accumulate(run, taken)
    clip_and_check(run, taken)
    run.optimizer.step()
    complete(run, taken)
    return recorded(run, taken, time.perf_counter() - started)


def _accumulate(run: Run, taken: Taken) -> None:
    """Forward and backward over the micro-batches.

    A second pass sees the same rows; its part of the loss counts as penalty, and its tokens count too.
    """
    task, second = run.data[run.attached.task], run.attached.second_pass
    parts = list(micro_batches(run, taken))
    for place, (start, part) in enumerate(parts):
        with taken.passes.waiting():
            batch, labels = run.feed.take(task.train, part)
        run.attached.begin_rows(run.step, start)
        with precise(run):
            logits, more = run.attached.logits(batch), None
            if second is not None:
                second.take(1)
                more = run.attached.logits(batch)
                second.take(0)
        part_loss(run, taken, part, labels, (logits, more), start == 0).backward()
        note_pass(run, taken, batch)
        prepare_next(run, run.step, parts[place + 1 :])


def _captured(run: Run, captured: Captured, taken: Taken) -> None:
    """`_accumulate` for a run whose passes are the same work at every step: one micro-batch, the task loss alone."""
    task = run.data[run.attached.task]
    with taken.passes.waiting():
        batch, labels = run.feed.take(task.train, taken.rows)
        batch = widened(batch, task.train, run.attached.backbone.max_length)
    loss = captured(batch, labels)
    prepare_next(run, run.step, [])
    taken.loss = float(loss)
    note_pass(run, taken, batch)


def prepare_next(run: Run, step: int, left: list[tuple[int, list[int]]]) -> None:
    """Has the next micro-batch made while the device works: the first that is left of this step, or of the next one."""
    task, rows = run.attached.task, left[0][1] if left else []
    if not left and step + 1 < run.total_steps:
        task, rows = run.schedule.batch(step + 1)
        rows = rows[: math.ceil(len(rows) / run.training.accumulation)]
    if rows:
        run.feed.prepare(run.data[task].train, rows)


def _passes(run: Run, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
    with run.attached.active():
        with precise(run):
            logits = run.attached.logits(batch)
        loss = run.data[run.attached.task].problem.loss(logits, labels)
        loss.backward()
    return loss.detach()


def checkpointing(run: Run, *others: Run) -> AbstractContextManager[None]:
    """Within it layers keep only their inputs, where that is asked for. others: in the same pass."""
    if not run.training.gradient_checkpointing:
        return nullcontext()
    return run.attached.backbone.checkpointed(partial(_as_now, [member.attached for member in (run, *others)]))


def _as_now(attachments: Sequence[Attached]) -> AbstractContextManager[None]:
    """What the second computation of a layer needs: the routes that are taken now."""
    seconds = [attached.second_pass for attached in attachments if attached.second_pass is not None]
    return _on_routes([(second, second.taken) for second in seconds]) if seconds else no_state()


@contextmanager
def _on_routes(routes: Sequence[tuple[SecondPass, int]]) -> Iterator[None]:
    before = [second.taken for second, _ in routes]
    for second, route in routes:
        second.take(route)
    try:
        yield
    finally:
        for (second, _), route in zip(routes, before, strict=True):
            second.take(route)


def precise(run: Run) -> AbstractContextManager[Any]:
    """Within it products are of the precision that the run asks for."""
    return torch.autocast(run.attached.device.type, torch.bfloat16, enabled=run.training.precision == "bf16")


def _evaluated(run: Run) -> Iterator[Event]:
    """Scores and ranks after the current step."""
    scores, loss, run.outcomes = evaluate(run.attached, run.data, run.training)
    chosen = _validated(run) if run.training.selection == "best" else None
    yield EvalRecord(run=run.spec.run, step=run.step, scores=scores, loss=loss, validation=chosen, seconds=run.seconds)
    primary = chosen if run.validates else scores[run.metric]
    better = run.training.selection == "best" and primary is not None and (run.best is None or primary > run.best[1])
    yield from _ranked(run, better)
    run.evaluations.append((run.step, scores))
    run.eval_losses[run.step] = loss
    if better and primary is not None:
        run.best, run.best_extra = (run.step, primary), run.extra_state()
        run.best_outcomes = run.outcomes
        run.best_tensors = {name: parameter.detach().clone() for name, parameter in run.parameters.items()}


def _ranked(run: Run, better: bool) -> Iterator[RankRecord]:
    """The ranks of this moment, where they are due: always of what the run may leave."""
    lasting = better or run.step == run.total_steps
    if not lasting and len(run.evaluations) % run.training.rank_every:
        return
    tolerance = run.training.rank_tolerance
    what, layers = layer_ranks(run.attached, run.task_ids, tolerance, spectra=lasting, cheap=not lasting)
    if layers:
        yield RankRecord(run=run.spec.run, step=run.step, what=what, layers=layers)
        if better or run.training.selection == "last":
            run.ranks = (run.step, what, layers)


def _validated(run: Run) -> float | None:
    """The first metric on the validation rows, where every task has some."""
    if not run.validates:
        return None
    return evaluate(run.attached, run.data, run.training, validation=True)[0][run.metric]
