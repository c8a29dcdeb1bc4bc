"""A finished run's adapter on disk: values that some mask keeps, a head of its own file, and what makes them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from peft_core.methods import Attached, MethodConfig
from peft_core.methods._masks import GENERATOR_VERSION
from peft_core.records import Frozen, InputError, Problem, RunSpec
from peft_core.tasks import TaskInfo
from peft_core.training.checkpoint import sweep, write_atomically
from peft_core.training.reading import Reading

ADAPTER, HEAD, CONFIG = "adapter.safetensors", "head.safetensors", "adapter.json"
TASKS = "tasks.json"
SUMS = "SHA256SUMS"
"""SHA-256 of the files above, a line each as `sha256sum --check` reads them."""


class TaskFacts(Frozen):
    """What must be known of a task to use what was trained on it, without its rows."""

    id: str
    problem: Problem
    outputs: int
    labels: tuple[str, ...] | None = None
    metric: str
    reading: Reading | None = None

    @classmethod
    def of(cls, info: TaskInfo, reading: Reading | None = None) -> TaskFacts:
        return cls(
            id=info.id,
            problem=info.problem,
            outputs=info.outputs,
            labels=info.labels,
            metric=info.metrics[0],
            reading=reading,
        )


def save_adapter(folder: Path, spec: RunSpec, config: MethodConfig, attached: Attached) -> tuple[int, int]:
    """Writes the adapter folder of a run. Returns its bytes without the head, and the head's."""
    described: dict[str, Any] = {
        "method": spec.method.id,
        "config": config.model_dump(exclude_none=True),
        "model": attached.backbone.id,
        "seed": spec.seed,
        "masks": GENERATOR_VERSION,
    }
    content = {
        ADAPTER: save(attached.stored()),
        HEAD: save(attached.stored_head()),
        CONFIG: json.dumps(described, separators=(",", ":")).encode(),
    }
    sweep(folder)
    (folder / SUMS).unlink(missing_ok=True)  # a kill in between leaves files without sums, not sums of other files
    for name, data in content.items():
        write_atomically(folder / name, data)
    write_sums(folder)
    return len(content[ADAPTER]) + len(content[CONFIG]), len(content[HEAD])


def write_sums(folder: Path) -> None:
    """Notes the checksums of an adapter folder's files."""
    sums = [f"{_sha256(folder / name)}  {name}\n" for name in (ADAPTER, HEAD, CONFIG)]
    write_atomically(folder / SUMS, "".join(sums).encode())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_tasks(folder: Path, tasks: Sequence[TaskFacts]) -> None:
    """Writes beside an adapter what it was trained for."""
    facts = [facts.model_dump(exclude_none=True) for facts in tasks]
    write_atomically(folder / TASKS, json.dumps(facts).encode())


def load_adapter(folder: Path, attached: Attached) -> None:
    """Puts a saved adapter and head into an attachment of the same method, options and seed.

    Raises:
        InputError: as `read_tensors` does, or the tensors are not those of the attachment.
    """
    attached.load_stored(*read_tensors(folder))


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The stored tensors of a run's adapter, and those of its head.

    Raises:
        InputError: the folder does not hold them, they are not as they were written, or they were drawn by another
            version of the mask generator.
    """
    if not (folder / CONFIG).is_file():
        raise InputError("adapter", str(folder), f"it must be a folder with {ADAPTER}, {HEAD} and {CONFIG}")
    check_sums(folder)
    try:
        version = json.loads((folder / CONFIG).read_text()).get("masks")
        tensors, head = load_file(folder / ADAPTER), load_file(folder / HEAD)
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError("adapter", str(folder), f"its files cannot be read ({type(error).__name__})") from error
    if version != GENERATOR_VERSION:
        raise InputError("adapter", version, f"its masks must be of generator version {GENERATOR_VERSION}")
    return tensors, head


def check_sums(folder: Path) -> None:
    """Compares an adapter folder's files with the checksums beside them; one from before there were any has none.

    Raises:
        InputError: a file is damaged or missing; which one.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    noted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in (ADAPTER, HEAD, CONFIG):
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise InputError("adapter", str(folder), f"its file {name} cannot be read ({error.strerror})") from None
        if noted.get(name) != found:
            raise InputError("adapter", str(folder), f"its file {name} is damaged: the checksum does not fit")
