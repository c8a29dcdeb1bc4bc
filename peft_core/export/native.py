"""The project's own format, the smallest: of masked tensors the values that a mask keeps, of fixed masks their seed,
learned ones a bit a value. Every file has its checksum in the description, which has a version.

    adapter.json           format, version, recipe (weights, method, options, seed, tasks), checksums
    adapter.safetensors    what the method stores
    head.safetensors       the task heads
    result.json            what the run measured; an adapter is whole without it
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from peft_core.export.folders import read_json, sha256, write_json
from peft_core.export.recipe import Recipe, Trained, rebuild, rebuild_update
from peft_core.methods._masks import GENERATOR_VERSION
from peft_core.records import Frozen, InputError, checked
from peft_core.training.native import ADAPTER, CONFIG, HEAD, check_sums

VERSION = 1
RESULT = "result.json"
"""What the run measured: not needed to use the adapter."""


class Description(Frozen):
    """adapter.json of an exported folder."""

    format: Literal["ranklab"] = "ranklab"
    version: int = Field(VERSION, ge=1)
    masks: int = Field(GENERATOR_VERSION, ge=1)
    recipe: Recipe
    sha256: dict[str, str]


def save_native(recipe: Recipe, adapter: Path, folder: Path) -> None:
    """Writes the exported form of a run's adapter folder.

    Of a model in a folder of the user's only the folder's name is written, and the checksum of its weights.
    """
    check_sums(adapter)
    for name in (ADAPTER, HEAD):
        shutil.copyfile(adapter / name, folder / name)
    described = Description(
        recipe=recipe.public(),
        sha256={name: sha256(folder / name) for name in (ADAPTER, HEAD)},
    )
    values = described.model_dump(mode="json")
    values["recipe"]["model"] = {key: value for key, value in values["recipe"]["model"].items() if value is not None}
    write_json(folder / CONFIG, values, small=True)


def is_native(folder: Path) -> bool:
    """Whether a folder looks like one of this format."""
    return (folder / CONFIG).is_file()


def read_native(folder: Path) -> Recipe:
    """The recipe of an exported folder whose files are those that were written.

    Raises:
        InputError: one sentence for a file that is missing or damaged, and for a version that is not known.
    """
    values: dict[str, Any] = read_json(folder / CONFIG, "adapter")
    if values.get("format") != "ranklab" or not isinstance(values.get("version"), int):
        raise InputError("adapter", str(folder), f"its {CONFIG} is not that of an exported adapter")
    if values["version"] > VERSION:
        raise InputError("adapter", str(folder), f"its format version {values['version']} is newer than {VERSION}")
    described = checked(Description, values, prefix="adapter.")
    for name in (ADAPTER, HEAD):
        if not (folder / name).is_file():
            raise InputError("adapter", str(folder), f"the file {name} is missing")
        if sha256(folder / name) != described.sha256.get(name):
            raise InputError("adapter", str(folder), f"the file {name} is damaged: its checksum does not fit")
    return described.recipe


def load_native(folder: Path, task: str | None = None, model: str | None = None) -> Trained:
    """The adapter of an exported folder on its backbone, ready to answer.

    Args:
        folder: what `export --format native` wrote.
        task: whose head serves, where several tasks were trained together.
        model: where the weights are, if not where the folder says.

    Raises:
        InputError: a damaged folder, or weights that cannot be had or are others.
    """
    return rebuild(read_native(folder), folder, task, model)


def load_native_update(folder: Path, model: str | None = None) -> Trained:
    """The same for its weight updates alone: weights of the backbone are read only where the method needs them."""
    return rebuild_update(read_native(folder), folder, model)
