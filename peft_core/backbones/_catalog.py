"""The models that can be named: embedded ones, the papers' backbones, local folders. Cheap: reads only JSON."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from peft_core.backbones._family import Family, TaskModel, family_of, known_architectures
from peft_core.backbones.paper_configs import PAPER_MODELS, PaperModel
from peft_core.records import InputError, Problem

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "models"
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class ModelInfo:
    """What lists and forms say of a model."""

    id: str
    title: str
    architecture: str
    """The family's name."""
    parameters: int | None
    """Embeddings included, pooler and head left out; None where no weights file tells."""
    origin: Literal["embedded", "paper", "hub", "local"]
    available: bool
    """True where the weights are at hand."""
    modality: Literal["text", "image"]
    license: str
    max_length: int | None
    """Most tokens of a row; None for images and for architectures without a limit."""
    repository: str | None = None
    """Hub repository of a paper's backbone."""


def list_models() -> list[ModelInfo]:
    """Embedded models, then the papers' backbones."""
    folders = sorted(path.parent for path in ASSETS.glob("*/config.json"))
    return [_folder_info(folder, "embedded") for folder in folders] + [_paper_info(model) for model in PAPER_MODELS]


def model_info(model_id: str) -> ModelInfo:
    """One model of `list_models`, or a local folder.

    Raises:
        InputError: no such model.
    """
    paper = paper_model(model_id)
    if paper is not None:
        return _paper_info(paper)
    folder = model_folder(model_id)
    return _folder_info(folder, "embedded" if folder.parent == ASSETS else "local")


def paper_model(model_id: str) -> PaperModel | None:
    return next((model for model in PAPER_MODELS if model.id == model_id), None)


def model_folder(model_id: str) -> Path:
    """The folder with the model's config and weights.

    Raises:
        InputError: the model is not at hand.
    """
    folder = _local_folder(model_id)
    if folder is not None and (folder / "config.json").is_file():
        return folder
    if folder is not None:
        raise InputError("model", model_id, "this folder holds no config.json of a transformers model")
    paper = paper_model(model_id)
    if paper is not None:
        raise InputError(
            "model", model_id, f"its weights are not at hand; give a folder that holds a copy of {paper.repository}"
        )
    known = ", ".join(model.id for model in list_models())
    raise InputError("model", model_id, f"it is not at hand; it must be a local folder or one of {known}")


def _local_folder(model_id: str) -> Path | None:
    """The folder an id or a path stands for, None where there is none or the file system takes no such name."""
    try:
        if (ASSETS / model_id).is_dir() and (ASSETS / model_id).parent == ASSETS:
            return ASSETS / model_id
        folder = Path(model_id).expanduser()
        return folder.resolve() if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder.

    Raises:
        InputError: it is not a JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        config = None
    if not isinstance(config, dict):
        raise InputError("model", str(folder), "its config.json cannot be read")
    return config


def family_for(model_id: str, config: dict[str, Any]) -> Family:
    """The family of a model's config; for one that only transformers knows, the generic plan.

    Raises:
        InputError: nobody knows the architecture.
    """
    kind = config.get("model_type")
    family = family_of(kind)
    if family is None and isinstance(kind, str):
        from peft_core.backbones._generic import generic_family

        family = generic_family(kind)
    if family is None:
        allowed = f"its architecture {kind!r} is not supported; those with every method are {known_architectures()}"
        raise InputError("model", model_id, allowed)
    for field, value in family.required:
        if config.get(field, value) != value:
            raise InputError("model", model_id, f"its {field} is {config[field]!r}; only {value!r} is supported")
    return family


def task_for(model_id: str, family: Family, problem: Problem) -> TaskModel:
    """The transformers model with which a family does a problem.

    Raises:
        InputError: the family cannot do it.
    """
    task = family.task(problem)
    if task is None:
        able = ", ".join(name for name in get_args(Problem) if family.task(name))
        raise InputError("model", model_id, f"a {family.name} model cannot do {problem}, only {able}")
    return task


def position_limit(family: Family, config: dict[str, Any]) -> int | None:
    """Most tokens that the positions of a model allow."""
    if family.positions_field is None:
        return None
    positions = config.get(family.positions_field)
    return positions - family.positions_reserved if isinstance(positions, int) else None


def _paper_info(model: PaperModel) -> ModelInfo:
    family = family_for(model.id, model.config)
    return ModelInfo(
        id=model.id,
        title=model.title,
        architecture=family.name,
        parameters=model.parameters,
        origin="paper",
        available=False,
        modality=family.modality,
        license=model.license,
        max_length=position_limit(family, model.config),
        repository=model.repository,
    )


def _folder_info(folder: Path, origin: Literal["embedded", "local"]) -> ModelInfo:
    config = read_config(folder)
    model_id = folder.name if origin == "embedded" else str(folder)
    family = family_for(model_id, config)
    return ModelInfo(
        id=model_id,
        title=folder.name,
        architecture=family.name,
        parameters=_stored_parameters(folder, family),
        origin=origin,
        available=any(folder.glob("*.safetensors")),
        modality=family.modality,
        license="Apache-2.0" if origin == "embedded" else "unknown",
        max_length=position_limit(family, config),
    )


def _stored_parameters(folder: Path, family: Family) -> int | None:
    """Values of the body in a folder's safetensors files, from their headers alone; None where head and body are not
    told apart by name (the generic plan)."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not family.stacks:
        return None
    shapes: dict[str, list[int]] = {}
    for file in files:
        shapes.update(_header_shapes(file, file.stat().st_mtime_ns))
    return sum(math.prod(shape) for name, shape in shapes.items() if not family.outside_body(name))


@cache
def _header_shapes(file: Path, modified: int) -> dict[str, list[int]]:
    """Shapes in one safetensors file: 8 bytes of header length, then a JSON header.

    Args:
        file: the file.
        modified: its time of change, so that a new file is read anew.

    Raises:
        InputError: the file is cut short or not a safetensors file.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, MAX_HEADER_BYTES)))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise InputError("model", str(file), "it is not a readable safetensors file") from None
