"""`train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft_core.api._model import Tuned
from peft_core.records import ComparisonSpec, Event, RunSpec, TrainingConfig, checked
from peft_core.training import Run, check
from peft_core.training import train as trained_steps
from peft_core.training.evaluate import evaluate as scored
from peft_core.training.reading import Reading
from peft_core.training.schedule import Schedule


def train(
    tuned: Tuned,
    *,
    train_rows: int | None = None,
    eval_rows: int | None = None,
    data_seed: int | None = None,
    on_record: Callable[[Event], object] | None = None,
    **settings: Any,
) -> list[Event]:
    """Trains what was attached on its task; called again, it goes on from the values that are there.

    Args:
        train_rows, eval_rows: how many rows of the task; None: as many as the last time, at first its default.
        data_seed: draws the rows and their order; None: as the last time, at first 0.
        on_record: hears of every record as it happens, such as `print`.
        settings: fields of `records.TrainingConfig`: steps or epochs, batch_size, learning_rate, weight_decay, warmup,
            clip_norm, accumulation, precision, eval_every, max_length, selection, ...; else their defaults.

    Returns:
        The records: a step's loss, rate and FLOPs (`StepRecord`), scores (`EvalRecord`) and ranks (`RankRecord`).

    Raises:
        InputError: a value that does not fit. RunFailure: the loss is not finite any more.

    >>> import peft_core
    >>> tuned = peft_core.attach(peft_core.load("tiny-text", task="sentiment"), "lora:rank=4")
    >>> records = peft_core.train(tuned, steps=3, batch_size=8, train_rows=32, eval_rows=16, learning_rate=1e-3)
    >>> [record.step for record in records if record.event == "step"]
    [1, 2, 3]
    """
    tuned.model.check_unmerged()
    training = checked(TrainingConfig, settings, prefix="training.")
    spec = _spec(tuned, training, train_rows, eval_rows, data_seed)
    check(spec)
    data = tuned.data(spec, trained=True)
    lengths = [task.train.lengths() for task in data]
    schedule = Schedule(lengths, training.batch_size, spec.data_seed, training.temperature)
    label = str(tuned.method)
    run = Run(
        RunSpec(run=label, comparison=spec, method=tuned.method, label=label, seed=tuned.seed),
        tuned.trained.config,
        tuned.attached,
        data,
        schedule,
    )
    records: list[Event] = []
    try:
        for record in trained_steps(run):
            records.append(record)
            if on_record is not None:
                on_record(record)
    finally:
        tuned.attached.train(False)
        tuned.attached.task = 0
    return records


def evaluate(
    tuned: Tuned, *, train_rows: int | None = None, eval_rows: int | None = None, data_seed: int | None = None
) -> dict[str, float | None]:
    """Scores by metric name, from 0 to 1 (correlations from -1), the task's first metric first.

    Args:
        eval_rows, data_seed: which of the task's evaluation rows; None: those of the last `train`, of a run its own.
        train_rows: only for answers that take a length or a scale from them; None in the same way.

    Raises:
        InputError: more rows than the task has, or a task that is not at hand.

    >>> import peft_core
    >>> tuned = peft_core.attach(peft_core.load("tiny-text", task="similarity"), "lora:rank=4")
    >>> list(peft_core.evaluate(tuned, eval_rows=32))
    ['pearson', 'spearman']
    """
    tuned.model.check_unmerged()
    known = tuned.trained.facts.reading or Reading()
    writes = tuned.trained.facts.problem == "generation"
    lengths = {"max_length": known.max_length, "max_new_tokens": known.max_new_tokens if writes else None}
    training = TrainingConfig.model_validate(lengths)
    data = tuned.data(_spec(tuned, training, train_rows, eval_rows, data_seed), trained=False)
    return scored(tuned.attached, data, training).scores


def _spec(
    tuned: Tuned, training: TrainingConfig, train_rows: int | None, eval_rows: int | None, data_seed: int | None
) -> ComparisonSpec:
    """A comparison of one run; what is not given is as the last time."""
    before = tuned.rows
    rows = (
        train_rows if train_rows is not None else before[0],
        eval_rows if eval_rows is not None else before[1],
        data_seed if data_seed is not None else before[2],
    )
    return tuned.spec(training, rows)
