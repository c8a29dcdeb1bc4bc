"""A finished run's adapter on disk: values that some mask keeps, a head of its own file, and what makes them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from peft_core.methods import Attached, MethodConfig
from peft_core.methods._masks import GENERATOR_VERSION
from peft_core.records import InputError, RunSpec
from peft_core.training.checkpoint import write_atomically

ADAPTER, HEAD, CONFIG = "adapter.safetensors", "head.safetensors", "adapter.json"


def save_adapter(folder: Path, spec: RunSpec, config: MethodConfig, attached: Attached) -> tuple[int, int]:
    """Writes the adapter folder of a run. Returns its bytes without the head, and the head's."""
    described: dict[str, Any] = {
        "method": spec.method.id,
        "config": config.model_dump(exclude_none=True),
        "model": attached.backbone.id,
        "seed": spec.seed,
        "masks": GENERATOR_VERSION,
    }
    write_atomically(folder / ADAPTER, save(attached.stored()))
    write_atomically(folder / HEAD, save(attached.stored_head()))
    write_atomically(folder / CONFIG, json.dumps(described, separators=(",", ":")).encode())
    return sum((folder / name).stat().st_size for name in (ADAPTER, CONFIG)), (folder / HEAD).stat().st_size


def load_adapter(folder: Path, attached: Attached) -> None:
    """Puts a saved adapter and head into an attachment of the same method, options and seed.

    Raises:
        InputError: the folder does not hold them, or they were drawn by another version of the mask generator.
    """
    if not (folder / CONFIG).is_file():
        raise InputError("adapter", str(folder), f"it must be a folder with {ADAPTER}, {HEAD} and {CONFIG}")
    version = json.loads((folder / CONFIG).read_text()).get("masks")
    if version != GENERATOR_VERSION:
        raise InputError("adapter", version, f"its masks must be of generator version {GENERATOR_VERSION}")
    attached.load_stored(load_file(folder / ADAPTER), load_file(folder / HEAD))
