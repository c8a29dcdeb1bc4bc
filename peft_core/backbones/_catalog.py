"""The models that can be named: embedded ones, the papers' backbones, folders, the Hub. Cheap: reads only JSON."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from peft_core.backbones._family import Family, TaskModel, family_of, known_architectures
from peft_core.backbones._hub_cache import cached_model
from peft_core.backbones._hub_ids import WRITTEN, HubId, check_text, hub_id, is_path
from peft_core.backbones.paper_configs import PAPER_MODELS, PaperModel
from peft_core.records import InputError, Problem, public_mode

if TYPE_CHECKING:
    from peft_core.backbones._hub import HubModel

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
    problems: tuple[Problem, ...]
    """What it can be asked for."""
    repository: str | None = None
    """Repository of the Hub; None for a folder."""


def list_models() -> list[ModelInfo]:
    """Embedded models, then the papers' backbones."""
    embedded = [_folder_info(ASSETS / name, "embedded") for name in _embedded()]
    return embedded + [_paper_info(model) for model in PAPER_MODELS]


def model_info(model_id: str) -> ModelInfo:
    """One model of `list_models`, a local folder, or a model of the Hub, of which metadata and config are read.

    Raises:
        InputError: no such model.
    """
    paper = paper_model(model_id)
    if paper is not None:
        return _paper_info(paper)
    folder = local_folder(model_id)
    if folder is not None:
        return _folder_info(folder, "embedded" if folder.parent == ASSETS else "local")
    return _hub_info(model_id)


def paper_model(model_id: str) -> PaperModel | None:
    return next((model for model in PAPER_MODELS if model.id == model_id), None)


def local_folder(model_id: str) -> Path | None:
    """The folder of an embedded model or of the visitor's own; None for what is to be looked for elsewhere.

    Raises:
        InputError: a folder without a model, or a path where there is no folder or none is allowed.
    """
    check_text(model_id)
    folder = _existing_folder(model_id)
    if folder is not None and (folder / "config.json").is_file():
        return folder
    if folder is not None:
        raise InputError("model", model_id, "this folder holds no config.json of a transformers model")
    if is_path(model_id):
        raise InputError("model", model_id, f"there is no such folder here; {WRITTEN}")
    return None


def _existing_folder(model_id: str) -> Path | None:
    """The folder an id or a path stands for, None where there is none or the file system takes no such name.

    Raises:
        InputError: a path where strangers may not name one.
    """
    if model_id in _embedded():
        return ASSETS / model_id
    if public_mode():
        if is_path(model_id):
            raise InputError("model", model_id, f"local folders cannot be named on a public page; {WRITTEN}")
        return None
    try:
        folder = Path(model_id).expanduser()
        return folder.resolve() if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _embedded() -> list[str]:
    return sorted(path.parent.name for path in ASSETS.glob("*/config.json"))


def config_of(model_id: str) -> dict[str, Any]:
    """A model's config without its weights: known for a paper's backbone, else of its folder or of the Hub.

    Raises:
        InputError: no such model, or its config cannot be read.
    """
    paper = paper_model(model_id)
    if paper is not None:
        return dict(paper.config)
    folder = local_folder(model_id)
    if folder is not None:
        return read_config(folder)
    return dict(hub_model(model_id).config)


def hub_model(
    model_id: str, commit: str | None = None, patient: bool = False, said: Callable[[str], None] | None = None
) -> HubModel:
    """What is known of a paper's backbone or a model of the Hub without its weights (`_hub.look_up`).

    Args:
        commit: in place of the revision that the id names.
        patient, said: whether a busy Hub is waited for, and who hears of that.

    Raises:
        InputError: there is no such model, or it cannot be used.
    """
    from peft_core.backbones._hub import look_up

    paper = paper_model(model_id)
    hub = HubId(paper.repository) if paper is not None else hub_id(model_id)
    try:
        return look_up(hub if commit is None else HubId(hub.repository, commit), model_id, patient, said)
    except InputError as error:
        if "/" in model_id or paper is not None:
            raise
        allowed = f"{error.allowed}; embedded models are {', '.join(_embedded())}"
        raise InputError(error.field, error.value, allowed) from None


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
    """The family of a model's config; for one that only transformers knows, the generic plan, but for strangers.

    Raises:
        InputError: nobody knows the architecture.
    """
    kind = config.get("model_type")
    family = family_of(kind)
    if family is None and isinstance(kind, str) and not public_mode():
        from peft_core.backbones._generic import generic_family

        family = generic_family(kind)
    if family is None:
        allowed = f"its architecture {kind!r} is not supported; those with every method are {known_architectures()}"
        raise InputError("model", model_id, allowed)
    if config.get("quantization_config") is not None:
        raise InputError(
            "model", model_id, "its weights are quantised; only plain floating-point weights are trained on"
        )
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
        available=cached_model(HubId(model.repository)) is not None,
        modality=family.modality,
        license=model.license,
        max_length=position_limit(family, model.config),
        problems=family.problems(),
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
        problems=family.problems(),
    )


def _hub_info(model_id: str) -> ModelInfo:
    found = hub_model(model_id)
    family = family_for(model_id, found.config)
    return ModelInfo(
        id=model_id,
        title=found.hub.repository,
        architecture=family.name,
        parameters=_stored_parameters(found.folder, family) if found.folder is not None else None,
        origin="hub",
        available=found.folder is not None,
        modality=family.modality,
        license=found.license,
        max_length=position_limit(family, found.config),
        problems=family.problems(),
        repository=found.hub.repository,
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
