"""How keys and values get in front of an attention's own, and out again without a trace (METHODS.md, Sites).

They are always visible, take no position, and have no relative bias; the distances between real tokens stay as they
were. Two ways, and the family's data says which one an attention takes (`records.PrefixPlace`):
    interface: the attention module is pointed at an attention function of ours, which widens keys, values, mask and
        position bias and then calls the one that the module used before (SDPA, eager or another).
    projected: hooks put the rows in front of what the module's key and value maps give and widen its mask; its method
        that scores relative positions is given the real keys alone and gets zero columns.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peft_core.methods._fold_slots import Slots, Stretch, joined
from peft_core.records import PrefixPlace

Rows = Callable[[], tuple[Tensor, Tensor]]
"""Gives the rows to put in front: keys (n, width) and values (n, width)."""
INTERFACE = "ranklab_prefix"


@dataclass(frozen=True)
class Front:
    """A prefix of one run, as folds see it (`_fold_slots.Foldable`)."""

    place: PrefixPlace
    rows: Rows
    tokens = 0

    @property
    def size(self) -> int:
        with torch.no_grad():
            return len(self.rows()[0])

    @property
    def apart(self) -> str | None:
        return self.place.module if self.place.form == "projected" else None

    @contextmanager
    def folded(self, model: nn.Module, slots: Slots, members: Mapping[int, Front]) -> Iterator[None]:
        """Within it the attention sees every member's rows in front of the keys and values of its slot."""
        with ExitStack() as undo:
            if self.place.form == "interface":
                _point_at_ours(model.get_submodule(self.place.module), _Fronts(slots, members), undo)
            else:
                _Projected(model, self.place, partial(_of_single_slot, slots, members), undo)
            yield


def _of_single_slot(slots: Slots, members: Mapping[int, Front]) -> tuple[Tensor, Tensor] | None:
    """The rows of the slot that is there by itself, where it has some."""
    return members[slots.now[0]].rows() if slots.narrowed and slots.now[0] in members else None


@dataclass(frozen=True)
class _Fronts:
    """The prefixes of several runs at one attention."""

    slots: Slots
    members: Mapping[int, Front]


@dataclass(frozen=True)
class _Active:
    """What goes in front of one attention while it is active, and the attention function that it used before."""

    front: Rows | _Fronts
    inner: Callable[..., Any]


_ACTIVE: WeakKeyDictionary[nn.Module, _Active] = WeakKeyDictionary()


@contextmanager
def prefixed(model: nn.Module, place: PrefixPlace, rows: Rows) -> Iterator[None]:
    """Within it the attention at a place sees these rows in front of its own keys and values."""
    with ExitStack() as undo:
        if place.form == "interface":
            _point_at_ours(model.get_submodule(place.module), rows, undo)
        else:
            _Projected(model, place, rows, undo)
        yield


# --- interface ---


def _point_at_ours(attention: Any, front: Rows | _Fronts, undo: ExitStack) -> None:
    """Gives this one module a copy of its config that names our function; the model's own config stays as it is."""
    from transformers import AttentionInterface

    AttentionInterface.register(INTERFACE, _attend)
    config, source = attention.config, sys.modules[type(attention).__module__]
    inner = source.ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, source.eager_attention_forward)
    pointed = copy.copy(config)
    pointed._attn_implementation = INTERFACE
    undo.callback(setattr, attention, "config", config)
    attention.config = pointed
    undo.callback(_ACTIVE.pop, attention)
    _ACTIVE[attention] = _Active(front, inner)


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """The module's former attention over n more keys and values.

    Args:
        query: (rows, heads, queries, head size). key, value: (rows, heads, keys, head size).
        mask: (rows or 1, heads or 1, queries or 1, keys), True or 0 where a key is visible; None for all, or for all
            up to the query's own position where the attention is causal.
        options: what else the interface passes; `position_bias` (1, heads, queries, keys) is added to the scores.
    """
    active = _ACTIVE[module]
    if isinstance(active.front, _Fronts):
        return _attend_folded(active.front, active.inner, module, (query, key, value, mask), options)
    rows = tuple(row.unsqueeze(0) for row in active.front())
    return _attend_behind(rows, active.inner, module, (query, key, value, mask), options)


Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Query, key, value and mask as of `_attend`."""


def _attend_behind(
    fronts: tuple[Tensor, ...], inner: Callable[..., Any], module: nn.Module, inputs: Inputs, options: dict[str, Any]
) -> Any:
    """fronts: keys and values (runs, n, heads * size), of as many runs as share the rows."""
    (query, key, value, mask), own = inputs, inputs[1].shape[2]
    key, value = (_heads_in_front(*pair) for pair in zip(fronts, (key, value), strict=True))
    count, options = key.shape[2] - own, dict(options)
    given = options.pop("is_causal", None)
    causal = given if given is not None else getattr(module, "is_causal", True)
    if mask is None and causal and query.shape[2] > 1:
        mask = _causal_mask(query.shape[2], own, query)
    if mask is not None:
        mask = F.pad(mask, (count, 0), value=mask.dtype == torch.bool)
    if options.get("position_bias") is not None:
        options["position_bias"] = F.pad(options["position_bias"], (count, 0))
    return inner(module, query, key, value, mask, is_causal=False, **options)


def _attend_folded(
    front: _Fronts, inner: Callable[..., Any], module: nn.Module, inputs: Inputs, options: dict[str, Any]
) -> Any:
    """Neighbouring slots with equally many rows in front together, and those without."""
    slots, rows = front.slots, len(inputs[0])
    found = {slot: front.members[slot].rows() for slot in slots.now if slot in front.members}
    stretches = slots.stretches(lambda slot: len(found[slot][0]) if slot in found else None)
    parts = [_own_rows(x, slots, stretches, rows) for x in (*inputs, options.get("position_bias"))]
    answers = []
    for stretch, query, key, value, mask, bias in zip(stretches, *parts, strict=True):
        own = options if bias is None else options | {"position_bias": bias}
        if stretch.kind is None:
            answers.append(inner(module, query, key, value, mask, **own)[0])
        else:
            fronts = tuple(torch.stack([found[slot][side] for slot in stretch.slots]) for side in (0, 1))
            answers.append(_attend_behind(fronts, inner, module, (query, key, value, mask), own)[0])
    return joined(answers), None


def _own_rows(x: Any, slots: Slots, stretches: list[Stretch], rows: int) -> list[Any]:
    """Each stretch's part of an input; all of it where it is the same for all rows."""
    return [x] * len(stretches) if x is None or len(x) != rows else slots.rows(x, stretches)


def _heads_in_front(rows: Tensor, own: Tensor) -> Tensor:
    """rows (runs, n, heads * size) in front of (runs * batch, heads, tokens, size)."""
    _, heads, _, size = own.shape
    by_run = own.unflatten(0, (len(rows), -1))
    split = rows.to(own.dtype).unflatten(2, (heads, size)).transpose(1, 2).unsqueeze(1)
    return torch.cat((split.expand(-1, by_run.shape[1], -1, -1, -1), by_run), dim=3).flatten(0, 1)


def _causal_mask(queries: int, keys: int, like: Tensor) -> Tensor:
    """(1, 1, queries, keys): 0 up to a query's own position, the lowest number behind it."""
    lowest = torch.full((queries, keys), torch.finfo(like.dtype).min, dtype=like.dtype, device=like.device)
    return lowest.triu(1)[None, None]


# --- projected ---


class _Projected:
    """An attention's key and value maps with rows in front of what they give, for as long as `undo` is open.

    DeBERTa's maps run twice in a forward, first on the tokens and then on the table of positions; only the first
    gets the rows.
    """

    def __init__(
        self, model: nn.Module, place: PrefixPlace, rows: Callable[[], tuple[Tensor, Tensor] | None], undo: ExitStack
    ) -> None:
        attention = model.get_submodule(place.module)
        self.rows, self.count = rows, 0
        self.pending: dict[str, Tensor] = {}
        self.score_positions = getattr(attention, place.bias)
        undo.callback(attention.register_forward_pre_hook(self.begin).remove)
        for role, path in (("key", place.key), ("value", place.value)):
            undo.callback(model.get_submodule(path).register_forward_hook(partial(self.put, role)).remove)
        setattr(attention, place.bias, self.pad_positions)
        undo.callback(delattr, attention, place.bias)

    def begin(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Makes this forward's rows, and the mask (batch, 1, queries, keys) wider by them."""
        hidden, mask, *others = args
        found = self.rows()
        if found is None:
            self.count, self.pending = 0, {}
            return args
        keys, values = found
        self.count, self.pending = len(keys), {"key": keys, "value": values}
        return (hidden, F.pad(mask, (self.count, 0), value=1), *others)

    def put(self, role: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """output (batch, tokens, width) with the rows in front, the first time in a forward."""
        rows = self.pending.pop(role, None)
        if rows is None:
            return output
        return torch.cat((rows.to(output.dtype).expand(len(output), -1, -1), output), dim=1)

    def pad_positions(self, queries: Tensor, keys: Tensor, *others: Any) -> Tensor:
        """Scores (batch * heads, queries, n + tokens) of the real keys' positions, zero for the n rows in front."""
        return F.pad(self.score_positions(queries, keys[:, self.count :], *others), (self.count, 0))
