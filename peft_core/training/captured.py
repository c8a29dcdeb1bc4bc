"""Forward and backward as a CUDA graph where a run's shapes repeat: recorded once for each shape, then replayed.

At small sizes a step on an accelerator waits for the host to launch its products; a replay launches them all at once.
Batches are padded to widths that repeat. For each shape the first steps run as usual and are timed; then the passes
are captured, one step is computed both ways and compared, the next ones are replayed and timed, and the faster way
stays. A run whose passes are not the same work every time is never captured (`why_not`); anything that goes wrong
leaves the run as it was, with one line in the log.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft_core.training.loop import Run
    from peft_core.training.problems import Encoded

logger = logging.getLogger(__name__)
WIDTH = 16
"""Widths of captured batches are multiples of this."""
UNTIMED, TIMED = 2, 5
"""Steps of a shape that are taken before it is timed, and those that are."""
MOST_SHAPES = 16
"""Shapes of a run that are captured; others run as usual. Each keeps its inputs and gradients."""
DEVIATION = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest norm of the difference between replayed and usual gradients, by the norm of the usual ones."""

Batch = dict[str, Tensor]
Passes = Callable[[Batch, Tensor], Tensor]
"""Forward and backward over a batch and its labels: the loss, its gradients in the parameters' `grad`."""


class Replay(Protocol):
    """Captured passes of one shape."""

    def __call__(self, batch: Batch, labels: Tensor) -> Tensor: ...


Capture = Callable[[Passes, Batch, Tensor], Replay]
Shape = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class _Known:
    """What is known of one shape."""

    usual: list[float] = field(default_factory=list)
    replayed: list[float] = field(default_factory=list)
    replay: Replay | None = None
    settled: bool = False
    decided: bool = False
    """A checkpoint says that it is to be replayed."""


class Captured:
    """Takes the passes of a run's steps, and finds out which way is faster.

    Args:
        passes: forward and backward as usual.
        parameters: those whose gradients the passes make.
        capture: records the passes of one shape.
        now: seconds, read when the device has done what it was given.
        deviation: as in `DEVIATION`.
    """

    def __init__(
        self,
        passes: Passes,
        parameters: Sequence[nn.Parameter],
        capture: Capture,
        now: Callable[[], float],
        deviation: float,
    ) -> None:
        self._passes, self._parameters, self._capture = passes, parameters, capture
        self._now, self._deviation = now, deviation
        self._known: dict[Shape, _Known] = {}
        self._off = False

    def __call__(self, batch: Batch, labels: Tensor) -> Tensor:
        """The loss of a step, its gradients added to the parameters' own."""
        shape = _shape(batch, labels)
        if self._off or (shape not in self._known and len(self._known) >= MOST_SHAPES):
            return self._passes(batch, labels)
        known = self._known.setdefault(shape, _Known())
        if known.settled:
            return (known.replay or self._passes)(batch, labels)
        if known.replay is None:
            if not known.decided and len(known.usual) < UNTIMED + TIMED:
                return self._timed(self._passes, known.usual, batch, labels)
            return self._recorded(known, batch, labels)
        loss = self._timed(known.replay, known.replayed, batch, labels)
        if len(known.replayed) == UNTIMED + TIMED:
            self._settle(known)
        return loss

    def chosen(self) -> dict[Shape, str]:
        """By shape which way is used by now: replayed, usual, or measuring."""
        return {
            shape: "measuring" if not known.settled and not self._off else "replayed" if known.replay else "usual"
            for shape, known in self._known.items()
        }

    def decisions(self) -> list[tuple[Shape, bool]]:
        """What was decided so far, for a checkpoint: shapes, and whether they are replayed."""
        return [(shape, known.replay is not None) for shape, known in self._known.items() if known.settled or self._off]

    def take_over(self, decisions: Iterable[Sequence[Any]]) -> None:
        """Decides as a checkpoint says, so that nothing is measured again when a run is resumed."""
        for shape, replayed in decisions:
            fields = tuple((str(name), tuple(size)) for name, size in shape)
            self._known[fields] = _Known(settled=not replayed, decided=replayed)

    def _timed(self, passes: Passes | Replay, times: list[float], batch: Batch, labels: Tensor) -> Tensor:
        started = self._now()
        loss = passes(batch, labels)
        times.append(self._now() - started)
        return loss

    def _settle(self, known: _Known) -> None:
        replayed, usual = (statistics.median(times[UNTIMED:]) for times in (known.replayed, known.usual))
        known.settled = True
        if replayed >= usual:
            known.replay = None

    def _recorded(self, known: _Known, batch: Batch, labels: Tensor) -> Tensor:
        """Captures a shape and takes this step both ways; the usual one's gradients are those that stay."""
        before = [parameter.grad for parameter in self._parameters]
        try:
            replay = self._capture(self._passes, batch, labels)
            _set(self._parameters, None)
            again = float(replay(batch, labels))
            replayed = [None if p.grad is None else p.grad.clone() for p in self._parameters]
        except (RuntimeError, ValueError) as error:
            logger.warning("steps are not captured: %s: %s", type(error).__name__, error)
            self._stop()
            _set(self._parameters, before)
            return self._passes(batch, labels)
        _set(self._parameters, None)
        loss = self._passes(batch, labels)
        if self._agree(float(loss), again, replayed):
            known.replay, known.settled = replay, known.decided
        else:
            logger.warning("steps are not captured: a replayed step differs from the usual one (loss %g)", again)
            self._stop()
        for parameter, earlier in zip(self._parameters, before, strict=True):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else earlier.add_(parameter.grad)
        return loss

    def _stop(self) -> None:
        self._off = True
        for known in self._known.values():
            known.replay = None

    def _agree(self, loss: float, again: float, replayed: Sequence[Tensor | None]) -> bool:
        if not abs(loss - again) <= self._deviation * max(abs(loss), 1e-6):
            return False
        apart = whole = 0.0
        for parameter, found in zip(self._parameters, replayed, strict=True):
            if (parameter.grad is None) != (found is None):
                return False
            if parameter.grad is not None and found is not None:
                apart += float((parameter.grad - found).double().square().sum())
                whole += float(parameter.grad.double().square().sum())
        return apart**0.5 <= self._deviation * whole**0.5


def _shape(batch: Batch, labels: Tensor) -> Shape:
    return tuple((name, tuple(value.shape)) for name, value in (*sorted(batch.items()), ("labels", labels)))


def _set(parameters: Iterable[nn.Parameter], gradients: Sequence[Tensor | None] | None) -> None:
    for index, parameter in enumerate(parameters):
        parameter.grad = gradients[index] if gradients is not None else None


def why_not(run: Run) -> str | None:
    """Why the passes of a run cannot be captured; None where they can.

    What is captured must be the same work at every step: what a method draws, grows, watches or computes apart from
    the task loss is not, and a graph knows nothing of what happens in Python.
    """
    attached, training = run.attached, run.training
    parts = [part for module in attached.modules.values() for part in module.modules()]
    reasons = {
        "several micro-batches": training.accumulation > 1,
        "gradient checkpointing": training.gradient_checkpointing,
        "several tasks": len(run.data) > 1,
        "a penalty or a second pass": attached.penalty is not None or attached.second_pass is not None,
        "the method acts between passes": bool(
            attached.after_backward or attached.before_update or attached.after_step or attached.extra_state
        ),
        "the method draws at every step": any(
            getattr(getattr(hook, "__self__", None), "draws", True) for hook in attached.before_step
        ),
        "dropout": any(hasattr(part, "first_row") and getattr(part, "probability", 1) for part in parts),
        "not on CUDA": attached.device.type != "cuda",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def captured_for(run: Run, passes: Passes) -> Captured | None:
    """What takes the passes of a run; None where they are never captured."""
    if why_not(run) is not None:
        return None
    parameters = list(run.parameters.values())
    deviation = DEVIATION[run.training.precision]
    return Captured(passes, parameters, CudaCapture(parameters), device_now, deviation)


def widened(batch: Mapping[str, Tensor], rows: Encoded, limit: int | None) -> Batch:
    """A text batch (rows, width) padded to the next multiple of `WIDTH`, at most `limit`; any other as it is.

    Only where one answer belongs to a row, so that no label stands at a position.
    """
    fields = set(batch) - {"attention_mask"}
    if "attention_mask" not in batch or not fields <= {"input_ids", "token_type_ids"} or isinstance(rows.labels, list):
        return dict(batch)
    width = batch["input_ids"].shape[1]
    more = min(-(-width // WIDTH) * WIDTH, limit or width + WIDTH) - width
    if more <= 0:
        return dict(batch)
    fill = {name: rows.pad[name] for name in fields} | {"attention_mask": 0}
    return {name: F.pad(value, (0, more), value=fill[name]) for name, value in batch.items()}


def device_now() -> float:
    """Seconds, once the device has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


@cache
def _pool() -> Any:
    """Memory that all graphs of the process share.

    They are replayed one after another, and what one leaves (loss, gradients) is used before the next: what a graph
    overwrites of another's, that one writes again first.
    """
    return torch.cuda.graph_pool_handle()


class CudaCapture:
    """Captures passes as CUDA graphs."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters

    def __call__(self, passes: Passes, batch: Batch, labels: Tensor) -> Replay:
        kept = {name: value.clone() for name, value in batch.items()}, labels.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            _set(self._parameters, None)
            passes(*kept)
        torch.cuda.current_stream().wait_stream(stream)
        _set(self._parameters, None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
            loss = passes(*kept)
        gradients = [(parameter, parameter.grad) for parameter in self._parameters if parameter.grad is not None]
        _set(self._parameters, None)

        def replay(batch: Batch, labels: Tensor) -> Tensor:
            for name, value in batch.items():
                kept[0][name].copy_(value, non_blocking=True)
            kept[1].copy_(labels, non_blocking=True)
            graph.replay()
            for parameter, gradient in gradients:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            return loss

        return replay
