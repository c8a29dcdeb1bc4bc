"""What a run was made of, so that it can be made again: the code, the weights and the rows, by commit or checksum."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

import peft_core

if TYPE_CHECKING:
    from peft_core.training.data import TaskData
    from peft_core.training.problems import Encoded

ROOT = Path(peft_core.__file__).parents[1]
GIT_SECONDS = 5.0


@cache
def code_origin(root: Path = ROOT) -> dict[str, Any]:
    """This package: its version, and in a checkout of its own the commit and whether its files differ from it."""
    found: dict[str, Any] = {"version": peft_core.__version__}
    if not (root / ".git").exists():
        return found
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", "peft_core")
    if commit:
        found["commit"] = commit
    if commit and changes is not None:
        found["modified"] = bool(changes)
    return found


def _git(root: Path, *words: str) -> str | None:
    """What git answers; None where it cannot."""
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def weights_sha256(folder: Path) -> str:
    """Checksum of the weights in a model's folder: of its safetensors files in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def described_data(where: Mapping[str, Mapping[str, Any]], tasks: Sequence[TaskData]) -> dict[str, Any]:
    """By task where its rows came from, with the checksum of what was made of them."""
    digests = rows_sha256(tasks)
    return {name: {**found, "rows_sha256": digests[name]} for name, found in where.items()}


def rows_sha256(tasks: Sequence[TaskData]) -> dict[str, str]:
    """By task a checksum of the encoded rows that are trained on, validated on and reported, with all that answers are
    scored against."""
    return {task.info.id: _digest(task) for task in tasks}


def _digest(task: TaskData) -> str:
    digest = hashlib.sha256()
    for part in (task.train, task.evaluation, task.validation):
        for piece in _pieces(part) if part is not None else ():
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()


def _pieces(rows: Encoded) -> Iterator[bytes]:
    from peft_core.training.problems import Encoded

    beyond = [getattr(rows, field.name) for field in fields(rows)[len(fields(Encoded)) :]]
    described = [values for values in beyond if isinstance(values, tuple | Encoded)]
    for values in (rows.tokens, rows.images, rows.labels, *described):
        if isinstance(values, Encoded):
            yield from _pieces(values)
        elif isinstance(values, Tensor):
            yield np.ascontiguousarray(values.cpu().numpy()).tobytes()
        else:
            yield json.dumps(values, sort_keys=True).encode()
