"""Checkpoints that survive a kill at any moment and know when they are damaged.

One safetensors file holds all tensors and, in its header, the state and a SHA-256 over both. It is written beside its
place, flushed to disk and renamed; the one before is kept, so a damaged file costs one checkpoint, not the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

logger = logging.getLogger(__name__)
KEEP = 2


class DamagedCheckpointError(RuntimeError):
    """A checkpoint whose bytes are not those that were written."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after a step."""

    step: int
    state: dict[str, Any]
    tensors: dict[str, Tensor]


def write_atomically(path: Path, content: bytes) -> None:
    """All of the content or nothing stands at `path` afterwards, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(folder: Path) -> None:
    """Removes what a killed process has left half written. For a folder that only the caller writes to."""
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Writes the checkpoint of a step and removes all but the last two."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dict(state), sort_keys=True, allow_nan=False)
    header = {"step": str(step), "state": text, "sha256": _digest(step, text, plain)}
    path = folder / f"step-{step:09d}.safetensors"
    sweep(folder)
    write_atomically(path, save(plain, metadata=header))
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads and verifies one checkpoint.

    Raises:
        DamagedCheckpointError: it is cut short, altered, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        step, text = int(header["step"]), header["state"]
        if header["sha256"] != _digest(step, text, tensors):
            raise DamagedCheckpointError(f"checkpoint {path.name} is damaged: its checksum does not fit")
        return Checkpoint(step, json.loads(text), tensors)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise DamagedCheckpointError(f"checkpoint {path.name} is damaged: {error}") from error


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for every newer one that is not."""
    said: list[str] = []
    paths = sorted(folder.glob("step-*.safetensors"), reverse=True)
    for number, path in enumerate(paths, start=1):
        try:
            return read_checkpoint(path), said
        except DamagedCheckpointError as error:
            logger.warning("%s", error)
            instead = "the one before it was used" if number < len(paths) else "there is none before it: it began anew"
            said.append(f"{error}; {instead}")
    return None, said


def _digest(step: int, text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{step}\n{text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
