"""What the public calls hand round: a loaded model, and a method on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peft_core.export.merge import merged
from peft_core.export.recipe import ModelFacts, Trained
from peft_core.methods import Attached
from peft_core.records import ComparisonSpec, InputError, LayerRank, MethodSpec, TrainingConfig, checked
from peft_core.training.data import TaskData, load_data
from peft_core.training.evaluate import layer_ranks
from peft_core.training.native import TaskFacts

if TYPE_CHECKING:
    from peft_core.backbones._backbone import TransformerBackbone

_Rows = tuple[int | None, int | None, int]
"""Training rows, evaluation rows, data seed."""


@dataclass(frozen=True)
class Model:
    """A frozen backbone with the head of a task; several methods may be attached to one.

    task: its id, several as ``a+b``. facts: which weights these are, by checksum or commit.
    """

    id: str
    task: str
    task_options: Mapping[str, Any]
    backbone: TransformerBackbone
    facts: ModelFacts
    _merged: list[str] = field(default_factory=list, repr=False, compare=False)

    def check_unmerged(self) -> None:
        """Refuses what would add to an update that is in the weights: InputError."""
        if self._merged:
            allowed = "the update is in the model's weights; call unmerge first, or the module that merge returned"
            raise InputError("merge", self._merged[0], allowed)

    @property
    def parameters(self) -> int:
        """Parameters of the backbone, head apart: what a method's are a percentage of."""
        return self.backbone.parameter_count()


@dataclass
class Tuned:
    """A method on a model: its parameters train, the backbone's stay as they are.

    The model itself computes with the method only within `active`, so several can share it.
    rows: training rows, evaluation rows (None: the task's default) and data seed of what it was trained on last.
    """

    model: Model
    method: MethodSpec
    seed: int
    trained: Trained
    rows: _Rows = (None, None, 0)
    _data: tuple[object, tuple[TaskData, ...]] | None = field(default=None, repr=False)
    _merged: ExitStack | None = field(default=None, repr=False)

    @property
    def attached(self) -> Attached:
        return self.trained.attached

    @property
    def trainable(self) -> int:
        """Parameters of the method that train: values that some mask keeps, head apart."""
        return self.attached.active_parameters()

    def parameters(self) -> list[nn.Parameter]:
        """What an optimizer of your own takes, the head included."""
        return list(self.attached.trainable().values())

    def active(self) -> AbstractContextManager[None]:
        """Within it the model's backbone computes with this method and head."""
        self.model.check_unmerged()
        return self.attached.active()

    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Output of the head, (rows, outputs), for inputs as the model's tokenizer or image processor makes them."""
        with self.active():
            return self.attached.logits(batch)

    def ranks(self) -> tuple[LayerRank, ...]:
        """Rank of the update of every adapted map, from its factors, with all singular values.

        >>> import peft_core
        >>> tuned = peft_core.attach(peft_core.load("tiny-text", task="sentiment"), "lora:rank=4")
        >>> {layer.numerical for layer in tuned.ranks()}, {layer.bound for layer in tuned.ranks()}
        ({0}, {4})
        """
        return layer_ranks(self.attached, spectra=True)[1]

    def merge(self) -> nn.Module:
        """Puts W + dW and the head into the model's weights until `unmerge`, and returns the transformers model.

        Raises:
            InputError: the method is no update of weights, or it is merged already.
        """
        if self._merged is not None:
            raise InputError("merge", self.method.id, "the update is in the weights already; unmerge it first")
        self.model.check_unmerged()
        undo = ExitStack()
        module = undo.enter_context(merged(self.trained))
        self.model._merged.append(self.method.id)
        self._merged = undo
        return module

    def unmerge(self) -> None:
        """Makes the model's weights what they were, bit for bit."""
        if self._merged is not None:
            self._merged.close()
            self.model._merged.clear()
            self._merged = None

    def spec(self, training: TrainingConfig, rows: _Rows | None = None) -> ComparisonSpec:
        """This method by itself as a comparison of one run."""
        train_rows, eval_rows, data_seed = rows or self.rows
        values = {
            "model": self.model.id,
            "task": self.model.task,
            "task_options": dict(self.model.task_options),
            "methods": (self.method,),
            "seeds": (self.seed,),
            "training": training,
            "train_rows": train_rows,
            "eval_rows": eval_rows,
            "data_seed": data_seed,
        }
        return checked(ComparisonSpec, values)

    def data(self, spec: ComparisonSpec, trained: bool) -> tuple[TaskData, ...]:
        """The task's rows for a spec, encoded once.

        Args:
            trained: they are trained on: how they were read is kept for exports and predictions.
        """
        training = spec.training
        rows = (spec.train_rows, spec.eval_rows, spec.data_seed)
        key = (rows, training.max_length, training.max_new_tokens, training.selection)
        if self._data is None or self._data[0] != key:
            self._data = key, load_data(spec, self.model.backbone)
        data = self._data[1]
        if trained:
            self.rows = rows
        if trained or self.trained.facts.reading is None:
            facts = tuple(TaskFacts.of(task.info, task.reading) for task in data)
            self.trained = replace(self.trained, recipe=self.trained.recipe.model_copy(update={"tasks": facts}))
        return data


def checked_seed(seed: int) -> int:
    """A seed for torch's generators: InputError where it is none."""
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InputError("seed", seed, "it must be a whole number from 0 to 2^63 - 1")
    return seed


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(checked_seed(seed))
