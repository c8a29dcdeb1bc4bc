"""A finished run's adapter on disk: values that some mask keeps, a head of its own file, and what makes them again."""

from __future__ import annotations

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
from peft_core.training.checkpoint import write_atomically
from peft_core.training.reading import Reading

ADAPTER, HEAD, CONFIG = "adapter.safetensors", "head.safetensors", "adapter.json"
TASKS = "tasks.json"


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
    write_atomically(folder / ADAPTER, save(attached.stored()))
    write_atomically(folder / HEAD, save(attached.stored_head()))
    write_atomically(folder / CONFIG, json.dumps(described, separators=(",", ":")).encode())
    return sum((folder / name).stat().st_size for name in (ADAPTER, CONFIG)), (folder / HEAD).stat().st_size


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
        InputError: the folder does not hold them, they cannot be read, or they were drawn by another version of the
            mask generator.
    """
    if not (folder / CONFIG).is_file():
        raise InputError("adapter", str(folder), f"it must be a folder with {ADAPTER}, {HEAD} and {CONFIG}")
    try:
        version = json.loads((folder / CONFIG).read_text()).get("masks")
        tensors, head = load_file(folder / ADAPTER), load_file(folder / HEAD)
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError("adapter", str(folder), f"its files cannot be read ({type(error).__name__})") from error
    if version != GENERATOR_VERSION:
        raise InputError("adapter", version, f"its masks must be of generator version {GENERATOR_VERSION}")
    return tensors, head
