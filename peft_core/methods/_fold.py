"""Several runs in one pass over the backbone: their batches behind each other, each run's modules on its own rows.

The frozen products run once over all rows; what runs add is multiplied together where its modules give pairs
(`_fold_products`), and else run by run on a view of the run's rows. A module that several runs' rows cannot go through
at once (DeBERTa's attention, whose maps also transform a table that all rows share) runs once for each of those runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from peft_core.methods._fold_acts import AtPlace, AtSite, map_at_sites, pair_of
from peft_core.methods._fold_parameters import Own, can_differ, own_parameters
from peft_core.methods._fold_slots import Slots, joined

if TYPE_CHECKING:
    from peft_core.methods._contract import Attached
    from peft_core.records import Backbone

Act = Callable[[Slots, nn.Module, tuple[Any, ...], Any], Any]


class Fold:
    """The attachments of several runs as one: what `Attached` is to a run alone.

    Args:
        attachments: of one backbone, a slot each. None of them has an `obstacle`, and all have equal `added_tokens`.
    """

    def __init__(self, attachments: Sequence[Attached]) -> None:
        self.attachments = tuple(attachments)
        self.slots = Slots(len(attachments))
        self.backbone: Backbone = attachments[0].backbone
        model = self.backbone.model
        self._modules: dict[int, nn.Module] = {}
        self._acts: dict[int, list[Act]] = {}
        self._at_sites: dict[str, list[AtSite]] = {}
        for site, members in _gathered(attachments, lambda attached: attached.at_sites).items():
            positions = {slot: (module, attachments[slot].positions) for slot, module in members.items()}
            self._at_sites.setdefault(site.module, []).append(AtSite(site, positions))
        for place, members in _gathered(attachments, lambda attached: attached.at_places).items():
            self._add(self._acts, model.get_submodule(place.module), AtPlace(place, members))
        within = _gathered(attachments, lambda attached: [(part.place, part) for part in attached.within if part])
        self._contexts = [
            partial(next(iter(members.values())).folded, model, self.slots, members) for members in within.values()
        ]
        self._split = _split_paths(attachments)
        self._own: dict[int, list[Own]] = {}

    def _add(self, acts: dict[int, list[Act]], module: nn.Module, act: Act) -> None:
        self._modules[id(module)] = module
        acts.setdefault(id(module), []).append(act)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it the backbone computes with every slot's modules, parameters and head on the slot's rows."""
        acts = {place: list(members) for place, members in self._acts.items()}
        with ExitStack() as undo:
            for own in self._own_parameters():
                if (act := own.bias()) is not None:
                    self._add(acts, own.module, act)
                else:
                    _replace_forward(own.module, own.forward(self.slots), undo)
            for path, sites in self._at_sites.items():
                module = self.backbone.model.get_submodule(path)
                _replace_forward(module, partial(map_at_sites, self.slots, sites, module, module.forward), undo)
            for place, members in acts.items():
                hook = partial(_act, self.slots, members)
                undo.callback(self._modules[place].register_forward_hook(hook).remove)
            for path, apart in self._split.items():
                module = self.backbone.model.get_submodule(path)
                _replace_forward(module, partial(_by_slot, self.slots, apart, module, module.forward), undo)
            for attached in self.attachments:
                undo.enter_context(attached.positions.reading(self.backbone.model))
            for context in self._contexts:
                undo.enter_context(context())
            yield

    def _own_parameters(self) -> list[Own]:
        """Of the task whose turn it is, which is the same for all."""
        task = self.attachments[0].task
        if task not in self._own:
            self._own[task] = own_parameters(
                (attached.overrides | attached.head, attached.owners) for attached in self.attachments
            )
        return self._own[task]

    def logits(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Every slot's answer to the batch (`Attached.logits`), in their order; call it within `active`."""
        count = len(self.attachments)
        repeated = {name: values.repeat(count, *[1] * (values.dim() - 1)) for name, values in batch.items()}
        return self.attachments[0].logits(repeated).tensor_split(count)


# --- what can be folded ---


def obstacle(attached: Attached) -> str | None:
    """Why a run cannot share a pass over the backbone with others, as the end of a sentence; None where it can."""
    if attached.trains_matrices:
        return "trains the backbone's own weights"
    if any(part is None for part in attached.within):
        return "puts something into the backbone that several runs cannot have at once"
    for name in (*attached.overrides, *attached.head):
        for module, role in attached.owners[name]:
            if not can_differ(module, role):
                return f"trains {name}, and runs cannot each have their own in a module of type {type(module).__name__}"
    return None


def added_tokens(attached: Attached) -> tuple[tuple[Hashable, int], ...]:
    """Where a run's rows get longer, and by how many tokens: equal for runs that can be folded."""
    return tuple((part.place, part.tokens) for part in attached.within if part is not None and part.tokens)


def touched(attached: Attached) -> set[str]:
    """Paths of the modules at which a run acts on its own rows, those within a module that runs by itself left out."""
    model = attached.backbone.model
    paths = {id(module): path for path, module in model.named_modules()}
    own = {paths[id(module)] for name in (*attached.overrides, *attached.head) for module, _ in attached.owners[name]}
    places = {site.module for site, _ in attached.at_sites} | {place.module for place, _ in attached.at_places}
    apart = _apart(attached)
    return {path for path in own | places if not any(path.startswith(f"{module}.") for module in apart)}


def kinship(attached: Attached) -> tuple[Any, ...]:
    """What runs are put in order by, so that those that are multiplied together are neighbours."""
    pairs = [pair_of(module) for module in (*dict(attached.at_sites).values(), *dict(attached.at_places).values())]
    together = bool(pairs) and all(pair is not None for pair in pairs)
    kinds = [site.name for site, _ in attached.at_sites] + [place.name for place, _ in attached.at_places]
    inner = sorted({getattr(pair.nonlinearity, "__name__", "") for pair in pairs if pair is not None})
    widest = max(((pair.rank, pair.branches) for pair in pairs if pair is not None), default=(0, 0))
    sizes = [part.size for part in attached.within if part is not None]
    return sizes, bool(attached.overrides), together, kinds, inner, widest


def _apart(attached: Attached) -> set[str]:
    """Paths of the modules that must see this run's rows by themselves."""
    shared = {site.content for site in attached.backbone.sites("six") if site.content}
    paths = {site.content for site, _ in attached.at_sites if site.content}
    paths |= {path for path in shared if any(name.startswith(f"{path}.") for name in attached.overrides)}
    return paths | {part.apart for part in attached.within if part is not None and part.apart}


def _split_paths(attachments: Sequence[Attached]) -> dict[str, set[int]]:
    """Modules that run several times, and the slots whose rows go through them by themselves."""
    found: dict[str, set[int]] = {}
    for slot, attached in enumerate(attachments):
        for path in _apart(attached):
            found.setdefault(path, set()).add(slot)
    return found


def _gathered(
    attachments: Sequence[Attached], parts: Callable[[Attached], Sequence[tuple[Any, Any]]]
) -> dict[Any, dict[int, Any]]:
    """What the attachments have, by where it is and by slot."""
    found: dict[Any, dict[int, Any]] = {}
    for slot, attached in enumerate(attachments):
        for place, part in parts(attached):
            found.setdefault(place, {})[slot] = part
    return found


# --- in the pass ---


def _act(slots: Slots, acts: Sequence[Act], module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    for act in acts:
        output = act(slots, module, args, output)
    return output


def _replace_forward(module: nn.Module, forward: Callable[..., Any], undo: ExitStack) -> None:
    if "forward" in module.__dict__:
        undo.callback(setattr, module, "forward", module.forward)
    else:
        undo.callback(delattr, module, "forward")
    module.forward = forward  # type: ignore[method-assign]


def _by_slot(
    slots: Slots, apart: set[int], module: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any
) -> Any:
    """The module called again for every slot that is apart, and for neighbouring others together.

    Its first two arguments hold the rows, hidden states and mask; what it gives first does, too.
    """
    if slots.narrowed:
        return forward(*inputs, **options)
    stretches = slots.stretches(lambda slot: slot if slot in apart else None)
    parts = [slots.rows(values, stretches) for values in inputs[:2]]
    answers = []
    for stretch, *own in zip(stretches, *parts, strict=True):
        with slots.only(stretch.slots):
            answers.append(module(*own, *inputs[2:], **options))
    if isinstance(answers[0], tuple):
        return (joined([answer[0] for answer in answers]), *answers[0][1:])
    return joined(answers)
