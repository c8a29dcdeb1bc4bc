"""How much memory a comparison will need, asked before its first step.

The activations that the backward pass keeps are not guessed: one and two rows of the longest length go forward, and
what autograd keeps of them is counted. They grow at most in proportion to the rows (over many tokens a low-rank pair
may keep less, `_product.cheapest_way`). Beside them stand the backbone, and for every trained value its gradient and
AdamW's two moments. Temporary results of single operations are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peft_core.methods import Attached
from peft_core.records import InputError, TrainingConfig

if TYPE_CHECKING:
    from peft_core.training.loop import Run

STATES = 3
"""Values kept for each trained one: its gradient and two moments."""


def kept_bytes(attached: Attached, batch: dict[str, Tensor], bf16: bool = False) -> int:
    """Bytes that the backward pass of this batch keeps, parameters left out."""
    shared = {_storage(value) for value in (*attached.backbone.model.parameters(), *attached.trainable().values())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(value: Tensor) -> Tensor:
        if _storage(value) not in shared:
            kept[_storage(value)] = value.untyped_storage()
        return value

    attached.train(True)
    attached.begin_rows(0, 0)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        attached.active(),
        torch.autocast(attached.device.type, torch.bfloat16, enabled=bf16),
    ):
        logits = attached.logits(batch).float()
        logits.logsumexp(-1).sum()
    return sum(storage.nbytes() for storage in kept.values())


def kept_by_kind(loss: Tensor, shared: Iterable[Tensor]) -> dict[str, int]:
    """Bytes that the backward pass of a loss keeps, by the kind of operation that first asks for them.

    Args:
        shared: tensors that live anyway, such as parameters; they are left out.
    """
    seen = {_storage(value) for value in shared}
    found: dict[str, int] = {}
    nodes, known = [loss.grad_fn], {loss.grad_fn}
    while nodes:
        node = nodes.pop()
        for value in _saved(node):
            if _storage(value) not in seen:
                seen.add(_storage(value))
                kind = type(node).__name__.rstrip("0123456789")
                found[kind] = found.get(kind, 0) + value.untyped_storage().nbytes()
        fresh = {after for after, _ in getattr(node, "next_functions", ()) if after is not None} - known
        known |= fresh
        nodes += fresh
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _saved(node: Any) -> list[Tensor]:
    """Tensors that a node of the graph keeps, whatever it calls them."""
    names = [name for name in dir(node) if name.startswith("_saved_")]
    values = [getattr(node, name) for name in names]
    values += getattr(node, "saved_tensors", ())
    flat = [one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])]
    return [value for value in flat if isinstance(value, Tensor)]


def no_state() -> AbstractContextManager[None]:
    """For a method whose passes all take one route: nothing to bring back when a layer is computed again."""
    return nullcontext()


def _storage(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def row_bytes(run: Run) -> tuple[int, int]:
    """(bytes that do not depend on the rows, bytes for each row) of a run's largest task."""
    found = [_measured(run, task) for task in range(len(run.data))]
    return max(found, key=lambda pair: pair[1])


def _measured(run: Run, task: int) -> tuple[int, int]:
    rows, before = run.data[task].train, run.attached.task
    widths = rows.lengths()
    widest = max(range(len(rows)), key=widths.__getitem__)
    run.attached.task = task
    for hook in run.attached.before_step:
        hook(0)
    bf16 = run.training.precision == "bf16"
    one, two = (kept_bytes(run.attached, rows.batch([widest] * count, run.attached.device), bf16) for count in (1, 2))
    run.attached.task = before
    each = max(0, two - one)
    if run.attached.second_pass is not None:
        each *= 2
    if run.training.gradient_checkpointing:
        layers = run.attached.backbone.layers
        each = each // layers + layers * widths[widest] * run.attached.backbone.hidden_size * 4
    return max(0, one - each), each


def state_bytes(runs: Sequence[Run]) -> int:
    """Gradients and moments of all runs, which take turns but keep them."""
    return sum(STATES * value.nbytes for run in runs for value in run.parameters.values())


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free now, on the device or within this process's limits; None where nothing says."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [_meminfo(), _control_group()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(free) * 1024 if free else None


def _control_group() -> int | None:
    """What a container's limit leaves (cgroup version 2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))


@dataclass(frozen=True)
class Needs:
    """Bytes that runs will need. rows: at once. each: of every run, (whatever the rows, for each row)."""

    backbone: int
    states: dict[str, int]
    each: dict[str, tuple[int, int]]
    rows: int
    available: int | None

    def activations(self, runs: Collection[str], groups: Sequence[Sequence[str]] = ()) -> int:
        """The most that is kept at once while these runs take turns; those of a group advance together."""
        together = [[run for run in group if run in runs] for group in groups]
        alone = [[run] for run in runs if not any(run in group for group in together)]
        return max((sum(self._kept(run) for run in unit) for unit in [*together, *alone]), default=0)

    def beside_model(self, runs: Collection[str], groups: Sequence[Sequence[str]] = ()) -> int:
        """All that a worker with these runs needs but the backbone."""
        return sum(self.states[run] for run in runs) + self.activations(runs, groups)

    def _kept(self, run: str) -> int:
        fixed, each = self.each[run]
        return fixed + self.rows * each


def memory_needs(runs: Sequence[Run], training: TrainingConfig) -> Needs:
    """What runs will need, from a look at one and two rows of each."""
    backbone = runs[0].attached.backbone
    return Needs(
        backbone=sum(parameter.nbytes for parameter in backbone.model.parameters()),
        states={run.spec.run: state_bytes([run]) for run in runs},
        each={run.spec.run: row_bytes(run) for run in runs},
        rows=-(-training.batch_size // training.accumulation),
        available=available_bytes(runs[0].attached.device),
    )


def require_memory(
    runs: Sequence[Run], training: TrainingConfig, groups: Sequence[Sequence[str]] = (), needs: Needs | None = None
) -> dict[str, int | None]:
    """Refuses a comparison that will not fit.

    Args:
        groups: ids of the runs that advance together. needs: where they are known already.

    Returns:
        the estimate in bytes: `backbone`, `states`, `activations` (of the largest run or group) and `available`
        (None: unknown).

    Raises:
        InputError: field training.batch_size, with a batch size that would fit.
    """
    needs = needs or memory_needs(runs, training)
    own = [run.spec.run for run in runs]
    states, free, activations = sum(needs.states[run] for run in own), needs.available, needs.activations(own, groups)
    if free is not None and states + activations > free:
        largest = max(map(len, groups), default=1)
        fitting = min((free - states - fixed) // max(1, each) for fixed, each in (needs.each[run] for run in own))
        raise InputError(
            "training.batch_size",
            training.batch_size,
            _refusal(states + activations, free, fitting // largest, training),
        )
    return {"backbone": needs.backbone, "states": states, "activations": activations, "available": free}


def _refusal(needed: int, free: int, fitting: int, training: TrainingConfig) -> str:
    said = f"about {gib(needed)} would be needed beside the model, and {gib(free)} are free"
    if fitting < 1:
        return f"{said}; not even one row fits: a shorter max_length, gradient_checkpointing or fewer methods need less"
    batch = fitting * training.accumulation
    more = f", or accumulation={-(-training.batch_size // fitting)} with this one" if training.accumulation == 1 else ""
    return f"{said}; {batch} would fit{more}"


def gib(count: int) -> str:
    """Bytes for reading, in GiB, or MiB below one."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
