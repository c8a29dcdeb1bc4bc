"""`load` and `attach`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from torch import nn

from peft_core.api._model import Model, Tuned, checked_seed, generator
from peft_core.api._own_module import Adapted
from peft_core.api._stored import finished_run
from peft_core.backbones import fetch_model, load_backbone
from peft_core.export.native import is_native, read_native
from peft_core.export.recipe import ModelFacts, Recipe, Trained, attach_trained, backbone_of, task_number
from peft_core.methods import get_method, resolve
from peft_core.records import START, InputError, MethodSpec
from peft_core.runs import ranks_of_method, stored_view
from peft_core.tasks import get_tasks
from peft_core.training.environment import pick_device
from peft_core.training.native import TaskFacts
from peft_core.training.origins import weights_sha256
from peft_core.training.start import add_heads


@overload
def load(
    model: str | Path, task: str, *, task_options: Mapping[str, Any] | None = None, device: str = "auto"
) -> Model: ...
@overload
def load(model: str | Path, task: None = None, *, weights: str | None = None, device: str = "auto") -> Tuned: ...
def load(
    model: str | Path,
    task: str | None = None,
    *,
    task_options: Mapping[str, Any] | None = None,
    weights: str | None = None,
    device: str = "auto",
) -> Model | Tuned:
    """A model with the head that a task needs; without a task, what was trained before.

    Args:
        model: an embedded id, a folder, or a Hub id. Without a task: a folder of `export(..., format="native")`, or the
            id of a finished run of the store.
        task: an embedded id, several as ``a+b``, a benchmark's id, or a table (CSV, TSV, JSON lines, Parquet).
        task_options: such as ``{"text": "review", "label": "stars"}``, the columns of a table.
        weights: of what was trained before: where its model is, if not where it was.
        device: auto (a CUDA device where there is one), cpu or cuda.

    Raises:
        InputError: there is no such model or task, or they do not fit.

    >>> import peft_core
    >>> model = peft_core.load("tiny-text", task="sentiment")
    >>> model.backbone.family, model.backbone.outputs
    ('roberta', 2)
    """
    where = pick_device(device)
    if task is None:
        return _trained(str(model), weights, str(where))
    infos = [found.info for found, _ in get_tasks(task, task_options)]
    source = fetch_model(str(model))
    first = infos[0]
    backbone = load_backbone(
        source.id, outputs=first.outputs, problem=first.problem, labels=first.labels, device=str(where)
    )
    for info in infos:
        if info.modality not in (backbone.modality, "any"):
            raise InputError("task", info.id, f"{model} takes {backbone.modality} tasks")
    facts = source.described() | ({} if source.commit else {"weights_sha256": weights_sha256(source.folder)})
    return Model(source.id, task, dict(task_options or {}), backbone, ModelFacts.model_validate(facts))


def _trained(given: str, weights: str | None, device: str) -> Tuned:
    """A native folder or a run, on its backbone."""
    options: dict[str, Any]
    rows: tuple[int | None, int | None, int]
    folder = Path(given).expanduser()
    if folder.is_dir():
        if not is_native(folder):
            raise InputError("task", None, f"{given} is no adapter of the native format; a model takes a task")
        recipe, values, task = read_native(folder), folder, None
        options, rows = {}, (None, None, 0)
    else:
        try:
            finished = finished_run(given)
        except InputError as error:
            if error.field == "id" and "no comparison or run" in error.allowed:
                raise InputError(
                    "task", None, f"there is no folder or run {given!r}, and a model takes a task"
                ) from None
            raise
        recipe, values, spec = finished.recipe(), finished.folder, finished.view.comparison.spec
        task, options, rows = spec.task, dict(spec.task_options), (spec.train_rows, spec.eval_rows, spec.data_seed)
    number = task_number(recipe, recipe.tasks[0].id)
    backbone = backbone_of(recipe, number, weights, device)
    trained = attach_trained(recipe, backbone, values, number)
    name = task or "+".join(facts.id for facts in recipe.tasks)
    model = Model(backbone.id, name, options, backbone, recipe.model)
    method = MethodSpec(id=recipe.method, options=_flat(recipe))
    return Tuned(model, method, recipe.seed, trained, rows)


def _flat(recipe: Recipe) -> dict[str, Any]:
    """The options, groups as dotted names."""
    found: dict[str, Any] = {}
    for name, value in recipe.config.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        found |= {f"{name}.{key}": entry for key, entry in inner if entry is not None}
        if not isinstance(value, Mapping) and value is not None:
            found[name] = value
    return found


@overload
def attach(model: Model, method: str | MethodSpec, *, seed: int = 0) -> Tuned: ...
@overload
def attach(
    model: nn.Module,
    method: str | MethodSpec,
    *,
    seed: int = 0,
    sites: Sequence[str] | None = None,
    train_also: Sequence[str] = (),
) -> Adapted: ...
def attach(
    model: Model | nn.Module,
    method: str | MethodSpec,
    *,
    seed: int = 0,
    sites: Sequence[str] | None = None,
    train_also: Sequence[str] = (),
) -> Tuned | Adapted:
    """A method on a loaded model, or on any torch module with linear maps.

    Args:
        model: from `load`; or a module of your own, which is frozen and called through what is returned.
        method: ``id`` or ``id:key=value,key=value``, as `python -m peft_core methods` lists them.
        seed: draws first values and masks; equal seeds give equal ones.
        sites: of a module of your own: patterns of the paths of its linear maps, such as ``blocks.*.fc1``; None: all.
        train_also: of a module of your own: submodules that train themselves, such as a new head.

    Raises:
        InputError: an option that the method does not have, or a model that it has no place in.

    >>> import peft_core
    >>> model = peft_core.load("tiny-text", task="sentiment")
    >>> plain = peft_core.attach(model, "lora:rank=4").trainable
    >>> peft_core.attach(model, "capaboost_lora:rank=4,d=2,sparsity=0.5").trainable / plain < 0.76
    True
    """
    checked_seed(seed)
    start = (method if isinstance(method, MethodSpec) else MethodSpec.parse(method)).start
    if start is not None:
        raise InputError(START, start, "an option of compare; load(RUN) gives what a run learned, and train goes on")
    if isinstance(model, nn.Module):
        return Adapted(model, str(method), seed, sites, train_also)
    if not isinstance(model, Model):
        raise InputError("model", type(model).__name__, "it must come from load, or be a torch module")
    if sites is not None or train_also:
        raise InputError("sites", sites, "a loaded model has named sites: give them as the method's option sites")
    spec = method if isinstance(method, MethodSpec) else MethodSpec.parse(method)
    spec = ranks_of_method(spec, stored_view)
    config = resolve(spec)
    attached = get_method(spec.id).attach(model.backbone, config, generator(seed))
    infos = [found.info for found, _ in get_tasks(model.task, model.task_options)]
    add_heads(attached, seed, model.backbone, infos)
    attached.train(False)
    recipe = Recipe(
        model=model.facts,
        method=spec.id,
        config=config.model_dump(),
        seed=seed,
        tasks=tuple(TaskFacts.of(info) for info in infos),
    )
    return Tuned(model, spec, seed, Trained(recipe, config, attached))
