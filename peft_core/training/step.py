"""A step of a run, in the parts that `loop` takes alone and `lockstep` for several runs at once (METHODS.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from peft_core.records import RunFailure, StepRecord
from peft_core.training.accounting import account
from peft_core.training.counting import shape_of_batch
from peft_core.training.optimizer import group_rate, rate_factor
from peft_core.training.totals import Passes

if TYPE_CHECKING:
    from peft_core.training.loop import Run


@dataclass
class Taken:
    """A step while it is taken. loss: over its micro-batches; penalty: None where the method has none.

    Both are added up after the backward pass, so that a device need not be waited for before it.
    """

    rate: float
    rows: list[int]
    passes: Passes
    loss: float = 0.0
    penalty: float | None = None
    norm: float = math.nan
    losses: list[Tensor] = field(default_factory=list)
    penalties: list[Tensor] = field(default_factory=list)

    def add_up(self) -> None:
        """Takes over what the micro-batches have given."""
        for loss in self.losses:
            self.loss += float(loss)
        for penalty in self.penalties:
            self.penalty = (self.penalty or 0.0) + float(penalty)
        self.losses, self.penalties = [], []


def begin(run: Run) -> Taken:
    """Sets the rates of this step number, lets the method draw, and chooses the rows."""
    attached, step = run.attached, run.step
    course = (run.training.warmup, attached.cycles)
    rate = run.peak_rate * rate_factor(step, run.total_steps, *course)
    for group in run.optimizer.param_groups:
        group["lr"] = group_rate(group["schedule"], step, run.total_steps, run.peak_rate, *course)
    attached.train(True)
    for hook in attached.before_step:
        hook(step)
    with Passes().waiting() as passes:
        attached.task, rows = run.schedule.batch(step)
    return Taken(rate, rows, passes)


def clip_and_check(run: Run, taken: Taken) -> None:
    """What comes between the backward pass and the optimizer's step: hooks, clipping.

    Raises:
        RunFailure: loss or gradient is not finite.
    """
    taken.add_up()
    step, loss = run.step, taken.loss
    for act in run.attached.after_backward:
        act(step, run.optimizer)
    taken.norm = run.optimizer.clip(run.parameters.values(), run.training.clip_norm)
    if not math.isfinite(loss):
        raise RunFailure(
            f"the loss became {loss} at step {step + 1}; a smaller learning rate than {taken.rate:g} may help"
        )
    if not math.isfinite(taken.norm):
        raise RunFailure(f"the gradient became {taken.norm} at step {step + 1}; a smaller learning rate may help")
    for act in run.attached.before_update:
        act(step, run.optimizer)


def complete(run: Run, taken: Taken) -> None:
    """What follows the optimizer's step: hooks, sums, growth, the next step number."""
    for act in run.attached.after_step:
        act(run.step, run.optimizer)
    run.optimizer.zero_grad(set_to_none=True)
    run.totals.add_loss(taken.loss, taken.penalty, begins=run.step % run.eval_every == 0)
    account(run, taken.passes, len(taken.rows))
    run.take_up_growth()
    run.step += 1


def recorded(run: Run, taken: Taken, seconds: float) -> StepRecord:
    """The record of the step that was just completed. seconds: what it took."""
    run.totals.add_step(seconds, taken.passes.waited, len(taken.rows))
    return StepRecord(
        run=run.spec.run,
        step=run.step,
        loss=taken.loss,
        penalty=taken.penalty,
        learning_rate=taken.rate,
        grad_norm=taken.norm,
        seconds=run.seconds,
        flops=run.totals.flops,
        adapter_flops_executed=run.totals.module_flops,
        adapter_flops_nominal=run.totals.nominal_flops,
        active_parameters=run.attached.active_parameters(),
    )


def micro_batches(run: Run, taken: Taken) -> Iterator[tuple[int, list[int]]]:
    """Where each micro-batch starts in the step's batch, and its rows."""
    size = math.ceil(len(taken.rows) / run.training.accumulation)
    for start in range(0, len(taken.rows), size):
        yield start, taken.rows[start : start + size]


def part_loss(
    run: Run, taken: Taken, part: list[int], labels: Tensor, logits: tuple[Tensor, Tensor | None], first: bool
) -> Tensor:
    """What a micro-batch adds to the step's loss; noted in `taken`, too.

    Args:
        logits: of the first pass and of the second, where there is one.
        first: whether the penalty, which counts once a step, comes with it.
    """
    task, second = run.data[run.attached.task], run.attached.second_pass
    share = task.train.weight(part) / task.train.weight(taken.rows)
    loss = task.problem.loss(logits[0], labels) * share
    taken.losses.append(loss.detach())
    extras = []
    if second is not None and logits[1] is not None:
        one, two = (task.problem.outputs(found, labels) for found in (logits[0], logits[1]))
        extras.append(second.loss(one, two, task.info.problem != "regression") * share)
    if first and run.attached.penalty is not None:
        extras.append(run.attached.penalty())
    for extra in extras:
        taken.penalties.append(extra.detach())
        loss = loss + extra
    return loss


def note_pass(run: Run, taken: Taken, batch: dict[str, Tensor]) -> None:
    """Notes what went forward and backward."""
    shape = shape_of_batch(batch)
    taken.passes.shapes.append(shape)
    taken.passes.tokens += shape[0] * _width(batch, run)


def _width(batch: dict[str, Tensor], run: Run) -> int:
    """Positions a row of the batch takes in the backbone."""
    if "input_ids" in batch:
        return batch["input_ids"].shape[1] + (
            batch["decoder_input_ids"].shape[1] if "decoder_input_ids" in batch else 0
        )
    return run.attached.backbone.image_tokens
