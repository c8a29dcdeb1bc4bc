"""What a method is, and what it leaves in a backbone.

A method is one file of this folder; the file's name is its id. It declares a frozen config and
``attach(backbone, config, generator) -> Attached``, and names itself in a module-level ``METHOD``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from peft_core.methods import _surgery
from peft_core.methods._configs import BoostableConfig, BoostedConfig, LowRankConfig, MethodConfig, chosen_sites
from peft_core.methods._counting import tensor_count
from peft_core.methods._fold_slots import Foldable
from peft_core.methods._masks import WeightTransform
from peft_core.methods._parts import Group, SecondPass, StepHook, WeightUpdate
from peft_core.metrics.parameters import TensorCount, trainable_parameters
from peft_core.records import AdapterPlace, Backbone, InputError, Site

__all__ = [
    "Attached",
    "BoostableConfig",
    "BoostedConfig",
    "Group",
    "LowRankConfig",
    "Method",
    "MethodConfig",
    "SecondPass",
    "WeightUpdate",
    "chosen_sites",
]


class Attached:
    """A method's part of one run: its modules, its own copies of backbone parameters, and what the loop must call.

    The loop calls what is there and knows no method by name, in this order:
        on_tasks(count): where several tasks are trained together; before the head and everything else.
        on_start(total_steps): once, before training; refuses a schedule that does not fit (InputError).
        before_step(step): draws what is drawn once a step (masks, routing).
        penalty() -> Tensor: added to the task loss, once a step.
        second_pass: another forward pass and the loss on both; the task loss is that of the first.
        after_backward, before_update, after_step (step, optimizer): after the backward pass, between clipping and the
        optimizer's step, and after that step while the gradients still stand.
        groups: parameters by name that train with a rate, decay or clock of their own. Parameters that appear or go
        while training (growth) are taken up after the step.
        count_active() -> int: trainable adapter parameters now, where they change.
        counts_at_target() -> list: what budgets count, where a method grows; `counts` are then those of this moment.
        count_products() -> list: the counts with the non-zeros that a pass multiplies now, where a method prunes.
        cycles: how often the rate's curve runs over the steps, in equal parts (`optimizer.cycle_of`).
        total_rank: sum of the ranks of all sites at the end, where the method sets it.
        extra_state() / load_extra_state(dict): what a checkpoint must hold beyond parameters (JSON). Loading comes
            before the parameters' values, also on an attachment that has trained, and may change which there are.
        pack / unpack: from the trained tensors to the stored ones and back, where not all are worth storing.
        one_way: why training cannot go on from the stored tensors, a sentence's end; None where it can.
    """

    def __init__(self, backbone: Backbone, seed: int) -> None:
        self.backbone, self.seed = backbone, seed
        self.modules: dict[str, nn.Module] = {}
        self.overrides: dict[str, nn.Parameter] = {}
        self.heads: list[dict[str, nn.Parameter]] = [{}]
        self.label_tokens: list[list[int]] | None = None
        self.task = 0
        self.counts: list[TensorCount] = []
        self.penalty: Callable[[], Tensor] | None = None
        self.second_pass: SecondPass | None = None
        self.before_step: list[Callable[[int], None]] = []
        self.on_tasks: list[Callable[[int], None]] = []
        self.on_start: list[Callable[[int], None]] = []
        self.after_backward: list[StepHook] = []
        self.before_update: list[StepHook] = []
        self.after_step: list[StepHook] = []
        self.groups: dict[str, Group] = {}
        self.cycles = 1
        self.total_rank: int | None = None
        self.counts_at_target: Callable[[], list[TensorCount]] | None = None
        self.count_active: Callable[[], int] | None = None
        self.count_products: Callable[[], list[TensorCount]] | None = None
        self.pack: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
        self.unpack: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
        self.one_way: str | None = None
        self.extra_state: Callable[[], dict[str, Any]] | None = None
        self.load_extra_state: Callable[[dict[str, Any]], None] | None = None
        self.updates: Callable[[], list[WeightUpdate]] = list
        self.at_sites: list[tuple[Site, nn.Module]] = []
        self.at_places: list[tuple[AdapterPlace, nn.Module]] = []
        self.within: list[Foldable | None] = []
        self._hooks: list[tuple[str, _surgery.Hook]] = []
        self._idle_hooks: list[tuple[str, _surgery.Hook]] = []
        self.positions = _surgery.Positions()
        self._contexts: list[_surgery.Context] = [partial(self.positions.reading, backbone.model)]
        self._idle_contexts = list(self._contexts)
        self._kept: dict[str, Callable[[], Tensor | None]] = {}

    # --- building ---

    def add_at_site(self, site: Site, module: nn.Module) -> None:
        self.add_module(site.name, module)
        self.at_sites.append((site, module))
        for hooks, hook in ((self._hooks, _surgery.SiteHook(site, module)), (self._idle_hooks, _surgery.idle_hook)):
            hooks.append((site.module, self.positions.guarded(site, hook) if site.content else hook))

    def add_at_place(self, place: AdapterPlace, module: nn.Module) -> None:
        self.add_module(place.name, module)
        self.at_places.append((place, module))
        self._hooks.append((place.module, _surgery.place_hook(place, module)))
        self._idle_hooks.append((place.module, _surgery.idle_hook))

    def add_within(
        self,
        name: str,
        module: nn.Module,
        context: _surgery.Context,
        idle: _surgery.Context,
        folds: Foldable | None = None,
    ) -> None:
        """A module that a context manager of its own puts into the backbone while the attachment is active.

        idle: the same with nothing in it, for `idle`. folds: the same for several runs at once; None: runs by itself.
        """
        self.add_module(name, module)
        self.within.append(folds)
        self._contexts.append(context)
        self._idle_contexts.append(idle)

    def add_module(self, name: str, module: nn.Module) -> None:
        """A module that the others use; one with a place in the backbone goes through the three above."""
        self.modules[name] = module.to(self.device)
        for draw in (getattr(part, "draw", None) for part in module.modules()):
            if draw is not None:
                self.before_step.append(draw)

    def add_tensor(
        self,
        module: str,
        role: str,
        transform: WeightTransform | None,
        site: str,
        in_product: bool,
        kept: Callable[[], Tensor | None] | None = None,
        differs: Mapping[str, Any] | None = None,
        made: Tensor | None = None,
    ) -> None:
        """Counts a parameter `role` of a module.

        Args:
            transform: says which of its values any mask keeps.
            kept: bool mask of the values worth storing now, where that is fewer than the transform keeps.
            differs: fields of the `TensorCount` that shape and transform do not tell.
            made: the tensor itself, where others make it while training and it is a parameter only once loaded.
        """
        parameter = self.modules[module].get_parameter(role) if made is None else made
        if transform is not None or kept is not None:
            self._kept[f"adapter.{module}.{role}"] = kept or transform.union  # type: ignore[union-attr]
        self.counts.append(tensor_count(f"{module}.{role}", site, role, parameter, transform, in_product, differs))

    def override(self, names: tuple[str, ...]) -> None:
        """Trains own copies of these backbone parameters."""
        for name in names:
            parameter = self.backbone.model.get_parameter(name)
            self.overrides[name] = _surgery.own_copy(parameter)
            site, _, role = name.rpartition(".")
            self.counts.append(tensor_count(name, site, role, parameter, differs={"is_bias": name.endswith("bias")}))

    def share_among(self, tasks: int) -> None:
        """Serves several tasks, each with a head of its own; `task` says whose turn it is, from 0."""
        self.heads = [{} for _ in range(tasks)]
        for hook in self.on_tasks:
            hook(tasks)

    def train_head(self, initial: Mapping[str, Tensor], task: int = 0) -> None:
        """Trains a head of its own from these values; the same for equal seeds, whatever the method."""
        self.heads[task] = {name: _surgery.own_copy(value.to(self.device)) for name, value in initial.items()}

    # --- what training, storing and measuring need ---

    @property
    def head(self) -> dict[str, nn.Parameter]:
        """The head of the task whose turn it is, by parameter name."""
        return self.heads[self.task]

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The heads of all tasks; names begin with the task's number where there are several."""
        if len(self.heads) == 1:
            return dict(self.head)
        return {f"{task}.{name}": value for task, head in enumerate(self.heads) for name, value in head.items()}

    @property
    def device(self) -> torch.device:
        return next(self.backbone.model.parameters()).device

    def trainable(self) -> dict[str, nn.Parameter]:
        """All parameters that train, by name: ``adapter.``, ``backbone.`` and ``head.`` ones.

        One that several modules share is there once, under the first module's name.
        """
        first: dict[int, tuple[str, nn.Parameter]] = {}
        for name, module in self.modules.items():
            for role, parameter in module.named_parameters():
                if parameter.requires_grad:
                    first.setdefault(id(parameter), (f"adapter.{name}.{role}", parameter))
        own = dict(first.values())
        own |= {f"backbone.{name}": parameter for name, parameter in self.overrides.items()}
        return own | {f"head.{name}": parameter for name, parameter in self.head_parameters().items()}

    def stored_counts(self) -> list[TensorCount]:
        """The counts with what is stored of each tensor now: after pruning fewer values than before training."""
        return [self._stored_now(count) for count in self.counts]

    def _stored_now(self, count: TensorCount) -> TensorCount:
        kept = self._kept.get(f"adapter.{count.name}", lambda: None)()
        if kept is None:
            return count
        table = kept if kept.dim() > 1 else kept.unsqueeze(1)
        return replace(count, stored=int(table.expand(count.rows, count.cols).sum()))

    def nominal_counts(self) -> list[TensorCount]:
        """The counts that nominal FLOPs of this moment come from: of pruned directions nothing is multiplied."""
        return self.count_products() if self.count_products else self.counts

    def active_parameters(self) -> int:
        """Trainable adapter parameters now: values that some mask keeps, head left out."""
        return self.count_active() if self.count_active else trainable_parameters(self.counts)

    def persistent_buffers(self) -> dict[str, Tensor]:
        """Buffers of the modules that a checkpoint must hold, by name."""
        return {
            f"{name}.{buffer}": value
            for name, module in self.modules.items()
            for buffer, value in module.state_dict(keep_vars=True).items()
            if not isinstance(value, nn.Parameter)
        }

    @cached_property
    def owners(self) -> _surgery.Owners:
        return _surgery.parameter_owners(self.backbone.model)

    @property
    def trains_matrices(self) -> bool:
        """Whether gradients of the backbone's own weights are computed, not only of its vectors."""
        return any(parameter.dim() > 1 for parameter in self.overrides.values())

    def active(self) -> AbstractContextManager[None]:
        """Within it the backbone computes with this method's modules, parameters and head."""
        return _surgery.installed(
            self.backbone.model, self._hooks, self.overrides | self.head, self.owners, self._contexts
        )

    def idle(self) -> AbstractContextManager[None]:
        """`active` with modules that do nothing but ask for a gradient where theirs begins.

        Within it the backbone computes what it computes for this method, forward and backward, and the modules nothing:
        what FLOPs count as the backbone's share.
        """
        return _surgery.installed(
            self.backbone.model, self._idle_hooks, self.overrides | self.head, self.owners, self._idle_contexts
        )

    def logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the backbone answers, for the task whose turn it is; call it within `active`."""
        return self.backbone.logits(batch, self.label_tokens[self.task] if self.label_tokens else None)

    def train(self, mode: bool = True) -> None:
        for module in self.modules.values():
            module.train(mode)

    def begin_rows(self, step: int, first_row: int) -> None:
        """Tells modules that draw by row where a micro-batch starts."""
        for module in self.modules.values():
            for part in module.modules():
                if hasattr(part, "first_row"):
                    part.step, part.first_row = step, first_row  # type: ignore[assignment]

    def stored(self) -> dict[str, Tensor]:
        """The adapter as it is kept: of a masked tensor only the values that some mask keeps, in row-major order."""
        tensors = {}
        for name, parameter in self.trainable().items():
            if name.startswith("head."):
                continue
            tensors[name.partition(".")[2]] = self.worth_storing(name, parameter.detach())
        return self.pack(tensors) if self.pack else tensors

    def worth_storing(self, name: str, value: Tensor) -> Tensor:
        """Of an adapter's tensor, by its name, the values to store: all (its shape), or those kept, in a row."""
        kept = self._mask_of(name, value)
        return (value[kept] if kept is not None else value).contiguous().cpu()

    def stored_head(self) -> dict[str, Tensor]:
        return {name: parameter.detach().contiguous().cpu() for name, parameter in self.head_parameters().items()}

    def load_stored(self, adapter: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
        """Takes what `stored` and `stored_head` gave.

        Raises:
            InputError: a tensor is missing, unexpected or of another size.
        """
        tensors = self.unpack(dict(adapter)) if self.unpack else adapter
        targets = self.trainable()
        given = {
            f"adapter.{name}" if f"adapter.{name}" in targets else f"backbone.{name}": value
            for name, value in tensors.items()
        }
        given |= {f"head.{name}": value for name, value in head.items()}
        odd = sorted(set(given) ^ set(targets))
        if odd:
            raise InputError("adapter", odd[0], "its tensors must be exactly those of the method and its options")
        with torch.no_grad():
            for name in sorted(given, key=self._kept.__contains__):
                self._load(name, targets[name], given[name])

    def _load(self, name: str, target: Tensor, value: Tensor) -> None:
        kept = self._mask_of(name, target)
        expected = int(kept.sum()) if kept is not None else target.numel()
        if value.numel() != expected:
            raise InputError("adapter", name, f"it must hold {expected} values, not {value.numel()}")
        if kept is None:
            target.copy_(value)
        else:
            target.zero_()[kept] = value.to(target.device)

    def _mask_of(self, name: str, value: Tensor) -> Tensor | None:
        """bool mask, of the value's shape, of what is worth storing of it; None for all."""
        kept = self._kept[name]() if name in self._kept else None
        return kept.expand_as(value) if kept is not None else None


class Attach(Protocol):
    def __call__(self, backbone: Backbone, config: Any, generator: torch.Generator) -> Attached: ...


@dataclass(frozen=True)
class Method:
    """A method as lists and forms show it."""

    id: str
    title: str
    family: Literal["baseline", "low-rank", "adapter", "prefix", "prompt"]
    source: str
    Config: type[MethodConfig]
    attach: Attach
    boosts: bool = False
    """True where options ``boost.d``, ``boost.sparsity`` ... put CapaBoost over it."""
    mergeable: bool = False
    modalities: tuple[Literal["text", "image"], ...] = ("text", "image")
    """Backbones it has a place in; `attach` refuses others, and may refuse more."""
    zero_init: bool = True
    """True where a fresh attachment leaves the backbone's output as it was."""
    part: Literal["yardstick", "floor", "ceiling"] | None = None
    """yardstick: the method that FLOPs and step times of others are compared with. floor: the task head alone.
    ceiling: every parameter trains."""
