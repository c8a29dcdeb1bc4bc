"""What makes a trained adapter again beside its stored values, and the adapter made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from peft_core.backbones import (
    ModelSource,
    fetch_model,
    initial_head,
    label_tokens,
    load_backbone,
    meta_backbone,
)
from peft_core.export.names import public_name
from peft_core.methods import Attached, MethodConfig, get_method
from peft_core.records import Frozen, InputError, Seed, checked
from peft_core.training.native import TaskFacts, load_adapter
from peft_core.training.origins import weights_sha256

if TYPE_CHECKING:
    from peft_core.backbones._backbone import TransformerBackbone


class ModelFacts(Frozen):
    """Which weights an adapter belongs to. A commit says it for a model of the Hub, elsewhere a checksum does."""

    origin: str
    id: str
    commit: str | None = None
    weights_sha256: str | None = None


class Recipe(Frozen):
    """A method with its options and seed, the weights that it was trained on, and what it was trained for."""

    model: ModelFacts
    method: str
    config: dict[str, Any]
    seed: Seed
    tasks: tuple[TaskFacts, ...] = Field(min_length=1)

    def public(self) -> Recipe:
        """The same to be given away: of a model or table of the user's only the last part of its path."""
        model = self.model.model_copy(update={"id": public_name(self.model.id)})
        tasks = tuple(facts.model_copy(update={"id": public_name(facts.id)}) for facts in self.tasks)
        return self.model_copy(update={"model": model, "tasks": tasks})


@dataclass(frozen=True)
class Trained:
    """A trained adapter on its backbone, in evaluation mode. `task`: whose head serves, where there are several.

    with trained.attached.active():
        scores = trained.attached.logits(batch)
    """

    recipe: Recipe
    config: MethodConfig
    attached: Attached
    task: int = 0

    @property
    def backbone(self) -> TransformerBackbone:
        return self.attached.backbone  # type: ignore[return-value]

    @property
    def facts(self) -> TaskFacts:
        return self.recipe.tasks[self.task]

    @property
    def words_only(self) -> bool:
        """Whether the model answers classes in words: it has no head of its own."""
        return not self.backbone.head and self.backbone.problem == "classification"


def rebuild(recipe: Recipe, folder: Path, task: str | None = None, model: str | None = None) -> Trained:
    """The trained adapter of a folder with its stored values.

    Args:
        task: whose head and masks serve, by id; may be left out where there is one task.
        model: where the weights are, if not where the recipe says.

    Raises:
        InputError: weights or values that cannot be had or are not those of the recipe.
    """
    number = task_number(recipe, task)
    return attach_trained(recipe, backbone_of(recipe, number, model), folder, number)


def backbone_of(recipe: Recipe, number: int = 0, model: str | None = None, device: str = "cpu") -> TransformerBackbone:
    """The weights of a recipe with the head of one of its tasks, which several adapters can share.

    Args:
        number: of the task. model: where the weights are, if not where the recipe says. device: a torch device.

    Raises:
        InputError: weights that cannot be had or are others.
    """
    source, facts = _fetch(recipe.model, model), recipe.tasks[number]
    return load_backbone(source.id, outputs=facts.outputs, problem=facts.problem, labels=facts.labels, device=device)


def rebuild_update(recipe: Recipe, folder: Path, model: str | None = None) -> Trained:
    """The same without the backbone's weights, for what is known of an adapter from its own values.

    Of a method that trains copies of the backbone's own parameters the update is their difference, so the weights are
    read after all.
    """
    facts = recipe.tasks[0]
    if model is None:
        check_here(recipe.model)
    shape = meta_backbone(model or _model_id(recipe.model), facts.outputs, facts.problem)
    shape.model.to_empty(device="cpu")
    config = _config(recipe)
    if get_method(recipe.method).attach(shape, config, torch.Generator().manual_seed(recipe.seed)).overrides:
        return rebuild(recipe, folder, facts.id, model)
    return attach_trained(recipe, shape, folder, 0)


def attach_trained(recipe: Recipe, backbone: TransformerBackbone, folder: Path, number: int = 0) -> Trained:
    """The stored values of a folder on a backbone that is there already.

    Args:
        number: of the task whose turn it is.

    Raises:
        InputError: the folder does not hold the values of this recipe.
    """
    config = _config(recipe)
    attached = get_method(recipe.method).attach(backbone, config, torch.Generator().manual_seed(recipe.seed))
    if len(recipe.tasks) > 1:
        attached.share_among(len(recipe.tasks))
        if not backbone.head_parameters() and backbone.processor is not None:
            attached.label_tokens = [label_tokens(backbone, facts.problem, facts.labels) for facts in recipe.tasks]
    for place, facts in enumerate(recipe.tasks):
        same = facts.outputs == backbone.outputs
        shape = backbone if same else meta_backbone(backbone.id, facts.outputs, facts.problem)
        attached.train_head(initial_head(shape, recipe.seed), place)
    load_adapter(folder, attached)
    attached.train(False)
    attached.task = number
    return Trained(recipe, config, attached, number)


def _config(recipe: Recipe) -> MethodConfig:
    return checked(get_method(recipe.method).Config, recipe.config, prefix=f"{recipe.method}.")


def task_number(recipe: Recipe, task: str | None) -> int:
    """Place of a task among those of a recipe; it may be left out where there is one.

    Raises:
        InputError: there is no such task.
    """
    known = [facts.id for facts in recipe.tasks]
    if task is None and len(known) == 1:
        return 0
    if task not in known:
        raise InputError("task", task, f"it must be a task that the run was trained on: {', '.join(known)}")
    return known.index(task)


def _model_id(facts: ModelFacts) -> str:
    return f"{facts.id}@{facts.commit}" if facts.commit else facts.id


def check_here(facts: ModelFacts) -> None:
    """Refuses a folder of the user's that is not there: of exported ones only the name is known. InputError."""
    if facts.origin == "local" and not Path(facts.id).expanduser().is_dir():
        raise InputError(
            "model", facts.id, "the adapter was trained on a folder of this name; say with --model where it is now"
        )


def _fetch(facts: ModelFacts, model: str | None) -> ModelSource:
    """The weights on this disk, checked to be those."""
    if model is None:
        check_here(facts)
    source = fetch_model(model or facts.id, None if model else facts.commit)
    if facts.weights_sha256 is not None and source.commit is None:
        found = weights_sha256(source.folder)
        if found != facts.weights_sha256:
            raise InputError("model", source.id, "its weights are not those that the adapter was trained on")
    return source
