"""FLOPs executed in training, counted from what runs by `torch.utils.flop_counter`: matrix products and convolutions.

The counter does not know the fused attention of a CPU, so all is counted under eager attention. Counting every step
would double its time. The products of a batch are a polynomial in its rows and widths, so a few passes over batches of
2 or 3 rows and as many tokens give it exactly, in whole numbers; another pass checks it, and where it does not hold,
the batches' own shapes are counted. Runs of a comparison that differ in their seed alone share what was counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from peft_core.methods import Attached
from peft_core.training.problems import Encoded

Shape = tuple[int, ...]
"""Rows, and the widths of what is read and written: (rows,), (rows, width) or (rows, width, decoder width)."""
Coefficients = tuple[tuple[int, int], ...]
"""Whole numbers, one pair for each term: of the forward and of the backward pass."""
PROBES: dict[int, tuple[Shape, ...]] = {
    1: ((2,), (3,)),
    2: ((2, 2), (3, 2), (2, 3), (2, 4)),
    3: ((2, 2, 2), (3, 2, 2), (2, 3, 2), (2, 2, 3), (2, 4, 2), (2, 2, 4), (2, 3, 3)),
}
"""Shapes counted, by the length of a shape; as many as `_terms` has entries."""
CHECKS: dict[int, Shape] = {1: (4,), 2: (3, 5), 3: (3, 4, 5)}


@dataclass(frozen=True)
class Flops:
    """FLOPs of a forward and backward pass. forward, backward: all; module_*: what the method's own products are."""

    forward: int = 0
    backward: int = 0
    module_forward: int = 0
    module_backward: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward

    @property
    def module(self) -> int:
        return self.module_forward + self.module_backward


def shape_of_batch(batch: dict[str, Tensor]) -> Shape:
    """The shape that FLOPs depend on, padding included."""
    if "pixel_values" in batch:
        return (len(batch["pixel_values"]),)
    widths = [batch[name].shape[1] for name in ("input_ids", "decoder_input_ids") if name in batch]
    return (len(batch["input_ids"]), *widths)


class StepCounter:
    """What a run's steps execute, from the shapes of their batches.

    Args:
        attached: the run's attachment.
        tasks: training rows of every task.
        same: equal for runs that execute the same for equal shapes, whatever their seed.
        step_context: what a step's passes run in (gradient checkpointing executes a second forward).
    """

    def __init__(
        self,
        attached: Attached,
        tasks: list[Encoded],
        same: str,
        step_context: Any = nullcontext,
    ) -> None:
        self.attached, self.tasks, self.same, self.step_context = attached, tasks, same, step_context
        self._state: tuple[Any, ...] = ()
        self._penalty = Flops()
        self._of_task: dict[int, _Polynomial | dict[Shape, Flops]] = {}
        self._at_first: dict[int, tuple[_Polynomial, dict[str, tuple[Coefficients, int]]]] = {}

    def prepare(self, task: int, step: int) -> None:
        """Counts what is not known yet of this task's steps; call it before a step. Leaves no trace in the run."""
        state = tuple((count.name, count.rows, count.cols) for count in self.attached.counts)
        if state != self._state:
            self._state = state
            self._of_task.clear()
        if task in self._of_task:
            return
        head = tuple(parameter.shape for parameter in self.attached.heads[task].values())
        key = (self.same, state, task, head, _shape_length(self.tasks[task]))
        known = _KNOWN.setdefault(self.attached.backbone.model, {})
        if key not in known:
            with self._rehearsed(task, step):
                known[key] = self._grown(task) or self._fitted(task)
        self._of_task[task] = known[key]
        if self.attached.penalty is not None:
            self._penalty = self._penalty_flops()

    def pass_flops(self, task: int, shape: Shape) -> Flops:
        """FLOPs of one forward and backward pass over a batch of this shape, the penalty left out."""
        found = self._of_task[task]
        if isinstance(found, _Polynomial):
            return found.at(shape)
        if shape not in found:
            found[shape] = self._both(self.tasks[task], shape)
        return found[shape]

    def token_products(self, task: int, shape: Shape) -> int:
        """FLOPs of the method's own forward products that tokens multiply, over a batch of this shape, dense.

        Of an encoder-decoder each stack multiplies its own tokens. What makes a prefix is left out, where products are
        a polynomial: it is once a pass, whatever the tokens.
        """
        found = self._of_task[task]
        return found.of_tokens(shape) if isinstance(found, _Polynomial) else self.pass_flops(task, shape).module_forward

    def penalty_flops(self) -> Flops:
        """FLOPs of the penalty, once a step."""
        return self._penalty

    # --- counting passes ---

    @contextmanager
    def _rehearsed(self, task: int, step: int) -> Iterator[None]:
        """As a step begins; what the step will find is as it was."""
        attached, before = self.attached, self.attached.task
        attached.task = task
        attached.train(True)
        for hook in attached.before_step:
            hook(step)
        attached.begin_rows(step, 0)
        try:
            yield
        finally:
            attached.task = before

    def _fitted(self, task: int) -> _Polynomial | dict[Shape, Flops]:
        """What was counted of a task's batches; nothing where no polynomial fits."""
        rows, two_stacks = self.tasks[task], self.attached.backbone.encoder_decoder
        probes, check = PROBES[_shape_length(rows)], CHECKS[_shape_length(rows)]
        idle = [self._counted(rows, shape, self.attached.idle()) for shape in probes]
        alone = _solved([_terms(shape) for shape in probes], idle)
        terms = [_module_terms(shape, two_stacks) for shape in probes]
        share = []
        for shape in probes[: len(terms[0])]:
            whole, backbone = self._counted(rows, shape, self.attached.active()), _value(alone, _terms(shape))
            share.append((whole[0] - backbone[0], whole[1] - backbone[1]))
        found = _Polynomial(alone, _solved(terms[: len(share)], share), two_stacks)
        seen = self._counted(rows, check, self.attached.active())
        fits = (found.at(check).forward, found.at(check).backward) == seen
        if fits and self.attached.counts_at_target is not None:
            self._remember(task, found, probes[: len(share)])
        return found if fits else {}

    # --- growth ---

    def _grown(self, task: int) -> _Polynomial | None:
        """What a grown method executes, without another pass: a site's products are in proportion to its directions."""
        if task not in self._at_first:
            return None
        first, parts = self._at_first[task]
        now = _products_by_site(self.attached)
        grown = [
            tuple((one * now[site] // before, two * now[site] // before) for one, two in coefficients)
            for site, (coefficients, before) in parts.items()
        ]
        return _Polynomial(first.alone, _summed(grown), first.two_stacks)

    def _remember(self, task: int, found: _Polynomial, probes: tuple[Shape, ...]) -> None:
        """Each site's part of the modules' products, counted module by module on inputs like the model's."""
        calls = [self._calls(self.tasks[task], shape) for shape in probes]
        terms, sizes = [_module_terms(shape, found.two_stacks) for shape in probes], _products_by_site(self.attached)
        parts = {
            site: (_solved(terms, [self._alone_flops(site, of_probe[site]) for of_probe in calls]), sizes[site])
            for site in sizes
        }
        if _summed([coefficients for coefficients, _ in parts.values()]) == found.module:
            self._at_first[task] = (found, parts)

    def _calls(self, rows: Encoded, shape: Shape) -> dict[str, list[tuple[torch.Size, bool]]]:
        """By site what its module is called with in a forward pass: shapes, and whether they need a gradient."""
        seen: dict[str, list[tuple[torch.Size, bool]]] = {name: [] for name in self.attached.modules}
        with ExitStack() as undo:
            for name, module in self.attached.modules.items():

                def note(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                    seen[name].append((args[0].shape, args[0].requires_grad))

                undo.callback(module.register_forward_pre_hook(note).remove)
            undo.enter_context(self.attached.active())
            self.attached.logits(probe_batch(rows, shape, self.attached.device))
        return seen

    def _alone_flops(self, site: str, calls: list[tuple[torch.Size, bool]]) -> tuple[int, int]:
        forward = total = 0
        for shape, needs in calls:
            given = torch.zeros(shape, device=self.attached.device, requires_grad=needs)
            with _kept_gradients(self.attached), _counter() as counter:
                answer = self.attached.modules[site](given)
                forward += counter.get_total_flops()
                answer.sum().backward()
            total += counter.get_total_flops()
        return forward, total - forward

    def _both(self, rows: Encoded, shape: Shape) -> Flops:
        forward, backward = self._counted(rows, shape, self.attached.active())
        alone = self._counted(rows, shape, self.attached.idle())
        return Flops(forward, backward, forward - alone[0], backward - alone[1])

    def _counted(self, rows: Encoded, shape: Shape, within: AbstractContextManager[None]) -> tuple[int, int]:
        """FLOPs of the forward and of the backward pass over a batch of this shape."""
        batch = probe_batch(rows, shape, self.attached.device)
        with (
            _kept_gradients(self.attached),
            eager_attention(self.attached.backbone.model),
            _counter() as counter,
            within,
            self.step_context(),
        ):
            loss = self.attached.logits(batch).float().sum()
            forward = counter.get_total_flops()
            if loss.requires_grad:
                loss.backward()
        return forward, counter.get_total_flops() - forward

    def _penalty_flops(self) -> Flops:
        assert self.attached.penalty is not None
        with _kept_gradients(self.attached), _counter() as counter:
            penalty = self.attached.penalty()
            forward = counter.get_total_flops()
            penalty.backward()
        backward = counter.get_total_flops() - forward
        return Flops(forward, backward, forward, backward)


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], _Polynomial | dict[Shape, Flops]]] = WeakKeyDictionary()
"""By backbone: what was counted on it."""


@dataclass(frozen=True)
class _Polynomial:
    """Coefficients of the terms: of the backbone alone, and of the method's modules."""

    alone: Coefficients
    module: Coefficients
    two_stacks: bool

    def at(self, shape: Shape) -> Flops:
        forward, backward = _value(self.alone, _terms(shape))
        module = _value(self.module, _module_terms(shape, self.two_stacks))
        return Flops(forward + module[0], backward + module[1], *module)

    def of_tokens(self, shape: Shape) -> int:
        """The modules' forward products but for those that do not depend on the batch."""
        return _value(self.module[1:], _module_terms(shape, self.two_stacks)[1:])[0]


def _terms(shape: Shape) -> tuple[int, ...]:
    """Products of a whole model: none, one or two token dimensions, each times the rows; and a constant."""
    rows, *widths = shape
    squares = [a * b for place, a in enumerate(widths) for b in widths[place:]]
    return (1, rows, *(rows * width for width in widths), *(rows * square for square in squares))


def _module_terms(shape: Shape, two_stacks: bool) -> tuple[int, ...]:
    """Products of a method's modules: linear in the tokens, since a method adds a fixed number of keys or features.

    In an encoder-decoder the decoder may read one token a row; in an image all widths are fixed.
    """
    rows, *widths = shape
    linear = tuple(rows * width for width in widths)
    return (1, rows, *linear) if two_stacks or not widths else (1, *linear)


def _solved(terms: list[tuple[int, ...]], values: list[tuple[int, int]]) -> Coefficients:
    found = np.rint(np.linalg.solve(np.array(terms, dtype=np.float64), np.array(values, dtype=np.float64)))
    return tuple((int(forward), int(backward)) for forward, backward in found)


def _summed(parts: list[Coefficients]) -> Coefficients:
    """Term by term."""
    columns = zip(*parts, strict=True)
    return tuple((sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)) for pairs in columns)


def _products_by_site(attached: Attached) -> dict[str, int]:
    """Values that multiply every token, by site."""
    sizes: dict[str, int] = {}
    for count in attached.counts:
        if count.in_product:
            sizes[count.site] = sizes.get(count.site, 0) + count.rows * count.cols * count.copies
    return sizes


def _value(coefficients: Coefficients, terms: tuple[int, ...]) -> tuple[int, int]:
    forward = sum(pair[0] * term for pair, term in zip(coefficients, terms, strict=True))
    return forward, sum(pair[1] * term for pair, term in zip(coefficients, terms, strict=True))


# --- what a counting pass needs ---


def probe_batch(rows: Encoded, shape: Shape, device: torch.device) -> dict[str, Tensor]:
    """A batch of this shape: the first row's first token again and again, and its last."""
    count, *widths = shape
    if rows.images is not None:
        return rows.batch([place % len(rows) for place in range(count)], device)
    assert rows.tokens is not None
    tokens = {
        name: [_stretched(values[0], widths[name.startswith("decoder")])] * count
        for name, values in rows.tokens.items()
    }
    return Encoded(tokens, None, torch.zeros(count), rows.pad).batch(range(count), device)


def _stretched(row: list[int], width: int) -> list[int]:
    return [*row[:1] * (width - 1), row[-1]]


def _shape_length(rows: Encoded) -> int:
    if rows.tokens is None:
        return 1
    return 3 if "decoder_input_ids" in rows.tokens else 2


class _NoModules:
    """In place of the counter's record of modules, which takes longer than the pass and is not asked for."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def _counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Within it every attention multiplies its matrices one by one, where the counter sees them."""
    configs: dict[int, Any] = {
        id(module.config): module.config for module in model.modules() if hasattr(module, "config")
    }
    chosen = [(config, config._attn_implementation) for config in configs.values() if _chooses(config)]
    try:
        for config, _ in chosen:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, before in chosen:
            config._attn_implementation = before


def _chooses(config: Any) -> bool:
    return getattr(config, "_attn_implementation", None) is not None


@contextmanager
def _kept_gradients(attached: Attached) -> Iterator[None]:
    """The gradients afterwards are those that stood before."""
    before = [(parameter, parameter.grad) for parameter in attached.trainable().values()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
