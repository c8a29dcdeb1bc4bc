"""Adapters from elsewhere as runs: a native folder as it is, a LoRA folder of PEFT as the method that it is.

PEFT's scale alpha / r goes into B, and ranks that differ become a pattern of ranks, so nothing is lost.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from peft_core.backbones import meta_backbone, model_info
from peft_core.export.factors import decomposed
from peft_core.export.lora_folder import LoraFolder, LoraLayer, read_lora_folder
from peft_core.export.names import public_name
from peft_core.export.native import RESULT, is_native, read_native
from peft_core.export.peft_format import OWN, PREFIX
from peft_core.export.recipe import ModelFacts, Recipe, check_here
from peft_core.methods import method_of_part, resolve
from peft_core.methods._masks import GENERATOR_VERSION
from peft_core.methods._rank_pattern import write_pattern
from peft_core.records import (
    Backbone,
    InputError,
    MethodSpec,
    Problem,
    RunResult,
    Site,
)
from peft_core.training.native import ADAPTER, CONFIG, HEAD, TASKS, TaskFacts, write_sums

PROBLEMS: dict[str | None, Problem] = {
    None: "classification",
    "SEQ_CLS": "classification",
    "QUESTION_ANS": "span",
    "CAUSAL_LM": "generation",
    "SEQ_2_SEQ_LM": "generation",
}
METRICS: dict[Problem, str] = {
    "classification": "accuracy",
    "regression": "pearson",
    "span": "exact_match",
    "generation": "exact_match",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Imported:
    """An adapter that was read and fits its backbone.

    values: writes its tensors and those of its head to a folder. measured: the result that came along, None where none
    did. labelled: False where it has classes and their order is not known.
    """

    recipe: Recipe
    values: Callable[[Path], None]
    measured: RunResult | None = None
    labelled: bool = True

    def write(self, to: Path) -> None:
        """Fills a folder as a run keeps its adapter."""
        to.mkdir(parents=True, exist_ok=True)
        self.values(to)
        _describe(self.recipe, to)
        write_sums(to)


def read_adapter(folder: Path, model: str | None = None) -> Imported:
    """Reads a native folder or a LoRA folder of PEFT.

    Args:
        model: the backbone, where the folder does not name it or it is elsewhere now.

    Raises:
        InputError: one sentence for what cannot be read or has no place in the backbone.
    """
    if not folder.is_dir():
        raise InputError("adapter", str(folder), "it must be a folder")
    if not is_native(folder):
        return _of_lora(read_lora_folder(folder), model)
    recipe = read_native(folder)
    if model is not None:
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"id": model, "commit": None})})

    def values(to: Path) -> None:
        for name in (ADAPTER, HEAD):
            shutil.copyfile(folder / name, to / name)

    return Imported(recipe, values, _measured(folder))


def _measured(folder: Path) -> RunResult | None:
    try:
        return RunResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def _describe(recipe: Recipe, to: Path) -> None:
    """The files beside the values, as a run that was trained here has them."""
    described = {
        "method": recipe.method,
        "config": recipe.config,
        "model": recipe.model.id,
        "seed": recipe.seed,
        "masks": GENERATOR_VERSION,
    }
    (to / CONFIG).write_text(json.dumps(described), encoding="utf-8")
    (to / TASKS).write_text(json.dumps([facts.model_dump() for facts in recipe.tasks]), encoding="utf-8")


# --- LoRA folders of PEFT ---


NO_RUN = {
    "alora_invocation_tokens": "it is aLoRA, which acts from certain tokens on; only plain LoRA can be a run",
    "layer_replication": "it repeats layers of its base, which has no place in a run",
}


def _of_lora(found: LoraFolder, model: str | None) -> Imported:
    for name, why in NO_RUN.items():
        if found.config.get(name):
            raise InputError("adapter", str(found.path), why)
    if (kind := found.changes_base) is not None:
        allowed = f"loading it changes the base weights ({kind}), so it cannot be a run; save it as plain LoRA first"
        raise InputError("adapter", str(found.path), allowed)
    base = _base(found, model)
    facts = _task(found, base)
    name = f"{base.id}@{base.commit}" if base.commit else base.id
    backbone = meta_backbone(name, facts.outputs, facts.problem)
    head = _head(found, backbone)
    sites = {layer.module: _site(layer, backbone, found) for layer in found.layers}
    ranks = {sites[layer.module].name: min(layer.rank, *layer.shape) for layer in found.layers}
    method = method_of_part("yardstick")
    config = resolve(MethodSpec(id=method.id, options={"rank_pattern": write_pattern(ranks, "imported")}))
    recipe = Recipe(model=base, method=method.id, config=config.model_dump(), seed=0, tasks=(facts,))

    def values(to: Path) -> None:
        tensors: dict[str, Tensor] = {}
        with found.opened() as file:
            for layer in found.layers:
                pair, site = found.factors(file, layer), sites[layer.module]
                if pair.rank > min(pair.shape):
                    pair = decomposed(pair).cut(min(pair.shape), pair.left)
                tensors |= {f"{site.name}.A": pair.right, f"{site.name}.B": pair.left}
            heads = {own: file.get_tensor(stored) for own, stored in head.items()}
        for path, kept in ((to / ADAPTER, tensors), (to / HEAD, heads)):
            save_file({key: value.float().contiguous() for key, value in kept.items()}, path)

    return Imported(recipe, values, labelled=facts.problem != "classification" or facts.labels is not None)


def _base(found: LoraFolder, model: str | None) -> ModelFacts:
    own = _own(found.path)
    if model is None and own is not None:
        check_here(own.model)
    base = model or found.config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError("model", base, "the folder names no base model; give it with --model")
    revision = found.config.get("revision")
    pinned = model is None and isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None
    return ModelFacts(origin=model_info(base).origin, id=base, commit=revision if pinned else None)


def _task(found: LoraFolder, base: ModelFacts) -> TaskFacts:
    """What it was trained for: as noted by ourselves, else by PEFT's word for it and the size of its head."""
    noted = _noted(found.path)
    if noted is not None:
        return noted
    kind = found.config.get("task_type")
    if kind not in PROBLEMS:
        raise InputError("adapter", str(found.path), f"its task_type is {str(kind)[:30]}, which is not used here")
    problem = PROBLEMS[kind]
    outputs = _outputs(found, base) if problem == "classification" else 2 if problem == "span" else 0
    if problem == "classification" and outputs == 1:
        problem = "regression"
    return TaskFacts(id=public_name(found.path.name), problem=problem, outputs=outputs, metric=METRICS[problem])


def _noted(folder: Path) -> TaskFacts | None:
    own = _own(folder)
    return own.tasks[0] if own is not None and len(own.tasks) == 1 else None


def _own(folder: Path) -> Recipe | None:
    """What an export of ours notes beside the files of PEFT."""
    try:
        return Recipe.model_validate_json((folder / OWN).read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        return None


def _outputs(found: LoraFolder, base: ModelFacts) -> int:
    """Rows of the head's last map: the parameter whose size depends on the number of classes."""
    name = f"{base.id}@{base.commit}" if base.commit else base.id
    two, three = (meta_backbone(name, outputs).model for outputs in (2, 3))
    sized = (key for key, value in two.named_parameters() if value.shape != three.get_parameter(key).shape)
    shape = next((found.others[f"{PREFIX}{key}"] for key in sized if f"{PREFIX}{key}" in found.others), None)
    if not shape:
        raise InputError("adapter", str(found.path), "it holds no task head, so its classes are not known")
    return shape[0]


def _head(found: LoraFolder, backbone: Backbone) -> dict[str, str]:
    """Name in the file by name of the head's parameter; nothing else may be there."""
    names = {name: f"{PREFIX}{name}" for name in backbone.head_parameters()}
    for name, stored in names.items():
        if found.others.get(stored) != tuple(backbone.model.get_parameter(name).shape):
            raise InputError("adapter", str(found.path), f"{name} of the task head is missing or of another size")
    odd = sorted(found.others.keys() - names.values())
    if odd:
        raise InputError("adapter", str(found.path), f"it also changes {odd[0]}, which has no place in a run")
    return names


def _site(layer: LoraLayer, backbone: Backbone, found: LoraFolder) -> Site:
    """The whole map that a module is."""
    selections = (backbone.sites("all-linear"), backbone.sites("six"), backbone.sites("qkvo"))
    for site in (site for sites in selections for site in sites):
        if site.module == layer.module and (site.out_features, site.in_features) == layer.shape:
            return site
    shape = "x".join(map(str, layer.shape))
    raise InputError("adapter", str(found.path), f"{backbone.id} has no map {layer.module} of {shape} to adapt")
