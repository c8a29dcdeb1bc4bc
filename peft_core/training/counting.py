"""FLOPs executed in training, counted from what runs by `torch.utils.flop_counter`: matrix products and convolutions.

The counter does not know the fused attention of a CPU, so all is counted under eager attention. Counting every step
would double its time. The products of a batch are a polynomial in its rows and widths, so a few passes over batches of
2 or 3 rows and as many tokens give it exactly, in whole numbers; another pass checks it, and where it does not hold,
the batches' own shapes are counted. Where modules choose how they execute by the number of tokens, there is a
polynomial for every set of choices (`_ways`). Runs of a comparison that differ in their seed alone share what was
counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from peft_core.methods import Attached
from peft_core.training._probes import Shape, eager_attention, flop_counter, kept_gradients, probe_batch, shape_length
from peft_core.training._ways import MIXED, Call, Tokens, Ways, calls_of, choosers, taken, thinnest
from peft_core.training.problems import Encoded

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
        merges: False where a step's precision forbids modules to merge their update into the frozen weight.

    folded: True for a run in lockstep, where thin products are all that is executed, and what is between them is kept.
    """

    def __init__(
        self,
        attached: Attached,
        tasks: list[Encoded],
        same: str,
        step_context: Any = nullcontext,
        merges: bool = True,
    ) -> None:
        self.attached, self.tasks, self.same, self.step_context = attached, tasks, same, step_context
        self.merges, self.folded = merges, False
        self._state: tuple[Any, ...] = ()
        self._penalty = Flops()
        self._of_task: dict[int, _Counted] = {}
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
        key = (self.same, state, task, head, shape_length(self.tasks[task]), self.merges)
        known = _KNOWN.setdefault(self.attached.backbone.model, {})
        if key not in known:
            with self._rehearsed(task, step):
                known[key] = self._grown(task) or self._counted_at_first(task)
        self._of_task[task] = known[key]
        if self.attached.penalty is not None:
            self._penalty = self._penalty_flops()

    def pass_flops(self, task: int, shape: Shape) -> Flops:
        """FLOPs of one forward and backward pass over a batch of this shape, the penalty left out."""
        return self._flops(task, shape, self._ways(task, shape))

    def token_products(self, task: int, shape: Shape) -> int:
        """FLOPs of the method's own forward products that tokens multiply, over a batch of this shape, dense.

        Of an encoder-decoder each stack multiplies its own tokens. What makes a prefix is left out, where products are
        a polynomial: it is once a pass, whatever the tokens.
        """
        thin = thinnest(self._ways(task, shape))
        flops, found = self._flops(task, shape, thin), self._of_task[task].fitted[thin]
        return found.of_tokens(shape) if found else flops.module_forward

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

    def _counted_at_first(self, task: int) -> _Counted:
        """A task's tokens by module, and its products at few tokens."""
        rows, tokens = self.tasks[task], None
        if choosers(self.attached):
            terms = [_module_terms(shape, self._two_stacks) for shape in PROBES[shape_length(rows)]]
            calls = [self._calls(rows, shape) for shape in PROBES[shape_length(rows)][: len(terms[0])]]
            tokens = Tokens(terms[: len(calls)], calls, [*choosers(self.attached)])
        found = self._of_task[task] = _Counted(tokens)
        ways = self._ways(task, CHECKS[shape_length(rows)])
        if MIXED not in ways:
            found.fitted[ways] = self._fitted(task, ways)
        return found

    @property
    def _two_stacks(self) -> bool:
        return self.attached.backbone.encoder_decoder

    def _ways(self, task: int, shape: Shape) -> Ways:
        tokens = self._of_task[task].tokens
        if tokens is None:
            return ()
        ways = tokens.ways(self.attached, _module_terms(shape, self._two_stacks), self.merges)
        return thinnest(ways) if self.folded else ways

    def _flops(self, task: int, shape: Shape, ways: Ways) -> Flops:
        """FLOPs of a pass whose modules go these ways."""
        found, before = self._of_task[task], self.attached.task
        self.attached.task = task
        if ways not in found.fitted:
            found.fitted[ways] = None if MIXED in ways else self._fitted(task, ways)
        polynomial = found.fitted[ways]
        if polynomial is None and (shape, ways) not in found.shapes:
            with taken(self.attached, ways):
                found.shapes[shape, ways] = self._both(self.tasks[task], shape)
        self.attached.task = before
        return polynomial.at(shape) if polynomial else found.shapes[shape, ways]

    def _fitted(self, task: int, ways: Ways) -> _Polynomial | None:
        """What was counted of a task's batches whose modules go these ways; None where no polynomial fits."""
        rows, counted = self.tasks[task], self._of_task[task]
        probes, check = PROBES[shape_length(rows)], CHECKS[shape_length(rows)]
        if counted.alone is None:
            idle = [self._counted(rows, shape, self.attached.idle()) for shape in probes]
            counted.alone = _solved([_terms(shape) for shape in probes], idle)
        terms = [_module_terms(shape, self._two_stacks) for shape in probes]
        share = []
        with taken(self.attached, ways):
            for shape in probes[: len(terms[0])]:
                whole, backbone = (
                    self._counted(rows, shape, self.attached.active()),
                    _value(counted.alone, _terms(shape)),
                )
                share.append((whole[0] - backbone[0], whole[1] - backbone[1]))
            found = _Polynomial(counted.alone, _solved(terms[: len(share)], share), self._two_stacks)
            seen = self._counted(rows, check, self.attached.active())
        fits = (found.at(check).forward, found.at(check).backward) == seen
        if fits and self.attached.counts_at_target is not None:
            self._remember(task, found, probes[: len(share)])
        return found if fits else None

    # --- growth ---

    def _grown(self, task: int) -> _Counted | None:
        """What a grown method executes, without another pass: a site's products are in proportion to its directions."""
        if task not in self._at_first:
            return None
        first, parts = self._at_first[task]
        now = _products_by_site(self.attached)
        grown = [
            tuple((one * now[site] // before, two * now[site] // before) for one, two in coefficients)
            for site, (coefficients, before) in parts.items()
        ]
        return _Counted(None, first.alone, {(): _Polynomial(first.alone, _summed(grown), first.two_stacks)})

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

    def _calls(self, rows: Encoded, shape: Shape) -> dict[str, list[Call]]:
        batch = probe_batch(rows, shape, self.attached.device)
        return calls_of(self.attached, lambda: self.attached.logits(batch))

    def _alone_flops(self, site: str, calls: list[Call]) -> tuple[int, int]:
        forward = total = 0
        for shape, needs, _ in calls:
            given = torch.zeros(shape, device=self.attached.device, requires_grad=needs)
            with kept_gradients(self.attached), flop_counter() as counter:
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
            kept_gradients(self.attached),
            eager_attention(self.attached.backbone.model),
            flop_counter() as counter,
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
        with kept_gradients(self.attached), flop_counter() as counter:
            penalty = self.attached.penalty()
            forward = counter.get_total_flops()
            penalty.backward()
        backward = counter.get_total_flops() - forward
        return Flops(forward, backward, forward, backward)


@dataclass
class _Counted:
    """What is known of a task's batches: a polynomial for a set of ways, or where none fits (None) shape by shape."""

    tokens: Tokens | None
    alone: Coefficients | None = None
    fitted: dict[Ways, _Polynomial | None] = field(default_factory=dict)
    shapes: dict[tuple[Shape, Ways], Flops] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], _Counted]] = WeakKeyDictionary()
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
