"""ProPETL: one prototype theta for all layers, and for every layer a learned binary mask: theta_l = theta * m_l.

Zeng et al. 2023, "One Network, Many Masks: Towards More Parameter-Efficient Transfer Learning", eq. 5, section 3.3.
Every layer has a real score tensor s_l shaped like the prototype's weights; m_l keeps the top share k of |s_l|. As a
weight transform it goes over any module; the prototype is one Parameter that many modules hold, so autograd sums
m_l * g_l over the layers. Biases are shared and never masked.

Where paper and authors' code differ: the paper passes the gradient to s unchanged, the code to |s|, and so do we:
dL/ds = sign(s) (dL/dtheta_l * theta). The paper counts biases as masked in what trains (n L + n); here, as in the code,
only weights have scores. The code stores masks as one byte a value; we pack them to one bit. The paper's Algorithm 1
subtracts the gradient of log p, which is a slip of the sign.

The paper's share k is 0.5 for one task and 0.3 for both masks of several; two of its scripts hold 0.1, a left-over.
Their T5 runs set the masks' rate to 10 times the weights' before each step, start in step 0 with a rate of 0 for the
prototype and 3 times the base for masks, and use 500 warm-up steps and label smoothing 0.1; here masks follow a curve
of their own, and smoothing is no option. Their merge ignores the masks; an update here is taken under them.

Several tasks (section 3.4, eq. 6): every task has a mask too, shared by the layers as theirs are by the tasks, and a
layer in a task uses m = 1 - (1 - m_layer)(1 - m_task); ablations `task_masks=and` (product) and `add` (sum, values up
to 2). It takes learned masks on a shared prototype. In the authors' code the first encoder layer's score tensor is by
mistake that of the last task; here every layer and every task has its own.

Ablations. Only mask (`share=false`): a prototype and a mask for every layer; values that the mask drops are not stored.
The paper's formula leaves out these masks' own bits; our exact storage counts them. Only share (`learn_masks=false`):
no masks. Random masks: the paper draws them "during the forward process", which leaves open how often; here they are
drawn once from the seed, and only the seed is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from peft_core.methods._bits import pack_bits, unpack_bits
from peft_core.methods._contract import Attached, Group
from peft_core.methods._masks import BoostConfig, MaskedCopies, Plain, WeightTransform
from peft_core.methods._modules import kaiming, keyed_generator
from peft_core.metrics.parameters import NOT_STORED
from peft_core.records import Backbone, Frozen, InputError

PACKED = "masks"
"""Name of the stored tensor that holds all learned masks, one bit a value, in the order of their modules."""


class PropetlConfig(Frozen):
    """Options that ProPETL adds to a method."""

    keep: float = Field(0.5, gt=0, le=1, description="share k of the weights that a layer's mask keeps")
    mask_learning_rate: float = Field(3e-3, gt=0, le=10, description="peak learning rate of the masks' scores")
    score_bound: float | None = Field(
        None, gt=0, le=1000, description="scores start as U(-bound, bound); empty: the authors' bounds"
    )
    share: bool = Field(True, description="one prototype for all layers; false: one for each")
    learn_masks: bool = Field(True, description="learn which weights a layer uses; false: it uses all")
    random_masks: bool = Field(False, description="fixed random masks instead of learned ones")
    task_masks: Literal["or", "and", "add", "off"] = Field(
        "or", description="several tasks: how a layer's learned mask and the task's combine; off: tasks have no masks"
    )

    @model_validator(mode="after")
    def _nothing_unused(self) -> PropetlConfig:
        if self.random_masks and "learn_masks" in self.model_fields_set and not self.learn_masks:
            raise InputError("random_masks", True, "with learn_masks=false there are no masks; give one of the two")
        unused = () if self.masks == "learned" else ("score_bound", "mask_learning_rate", "task_masks")
        for name in ("keep", *unused) if self.masks == "none" else unused:
            default = type(self).model_fields[name].default
            if getattr(self, name) != default and not (name == "task_masks" and self.task_masks == "off"):
                why = "no masks" if self.masks == "none" else "masks that do not learn"
                raise InputError(name, getattr(self, name), f"it does nothing with {why}; leave it out")
        return self

    @property
    def masks(self) -> Literal["random", "learned", "none"]:
        if self.random_masks:
            return "random"
        return "learned" if self.learn_masks else "none"


def dropped_count(count: int, keep: float) -> int:
    """floor((1 - k) n), exactly in decimal."""
    return int(count * (1 - Decimal(str(keep))))


def top_mask(size: Tensor, keep: float) -> Tensor:
    """bool mask that drops the floor((1 - k) n) smallest values, of equal ones the first."""
    values = size.flatten()
    dropped = dropped_count(len(values), keep)
    if dropped == 0:
        return torch.ones_like(size, dtype=torch.bool)
    # A sort costs ten times as much on a CPU; elsewhere kthvalue is refused under deterministic algorithms.
    on_cpu = values.device.type == "cpu"
    threshold = values.kthvalue(dropped).values if on_cpu else values.sort().values[dropped - 1]
    above, equal = values > threshold, values == threshold
    room = len(values) - dropped - above.sum()
    last = equal.flip(0).cumsum(0).flip(0) <= room
    return (above | (equal & last)).view_as(size)


def binary_mask(scores: Tensor, keep: float) -> Tensor:
    """0 or 1 in the scores' type; its gradient goes straight through to |s|."""
    size = scores.abs()
    return top_mask(size.detach(), keep).to(scores.dtype) + (size - size.detach())


def combine(layer: Tensor, task: Tensor, how: Literal["or", "and", "add"] = "or") -> Tensor:
    """The mask of a layer in a task (eq. 6): 1 - (1 - m_layer)(1 - m_task); ablations: product, and sum (up to 2)."""
    if how == "and":
        return layer * task
    return layer + task if how == "add" else 1 - (1 - layer) * (1 - task)


class LearnedMask(Plain):
    """theta * m with m the top share of |scores|; scores of the weight's shape (rows, cols).

    with_task: from this mask's values (rows, cols) to those in the task whose turn it is; None: the same in all tasks.
    """

    def __init__(self, shape: tuple[int, int], keep: float, scores: Tensor) -> None:
        super().__init__(shape)
        self.keep, self.scores = keep, nn.Parameter(scores)
        self.with_task: Callable[[Tensor], Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, cols) to (1, rows, cols)."""
        mask = self.values()
        return (weight * (self.with_task(mask) if self.with_task else mask)).unsqueeze(0)

    def values(self) -> Tensor:
        """The mask itself, 0 or 1, (rows, cols)."""
        return binary_mask(self.scores, self.keep)

    def chosen(self) -> Tensor:
        """bool (rows, cols): the values that it keeps now."""
        return top_mask(self.scores.detach().abs(), self.keep)


class Prototype(nn.Module):
    """The tensors that modules share, and the modules by name."""

    made = False
    """True where parameters of its own make what the modules share; they are not stored."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for role, value in tensors.items():
            self.register_parameter(role, nn.Parameter(value))
        self.users: dict[str, nn.Module] = {}

    def tie(self, name: str, module: nn.Module) -> None:
        """Makes the module's parameters these."""
        for role, parameter in self.named_parameters():
            setattr(module, role, parameter)
        self.users[name] = module

    def shared(self) -> dict[str, Tensor]:
        """What the modules share, by role."""
        return dict(self.named_parameters())


class Builder:
    """Makes an attachment of modules whose weights are masked prototypes.

    Every module of a name holds for each weight `role` the transform `mask_<role>` that `mask` gave.
    """

    def __init__(self, backbone: Backbone, config: PropetlConfig, seed: int) -> None:
        self.config = config
        self.attached = Attached(backbone, seed)
        self._prototypes: dict[str, Prototype] = {}
        self._learned: dict[str, LearnedMask] = {}
        self._groups: dict[str, str] = {}
        self._bounds: dict[str, float] = {}
        self._drawn: dict[tuple[str, str], Tensor] = {}

    def mask(self, shape: tuple[int, int], name: str, role: str, bound: float) -> WeightTransform:
        """The mask of one layer's tensor. bound: of its first scores, where the config has none."""
        seed, config = self.attached.seed, self.config
        if config.masks == "none":
            return Plain(shape)
        if config.masks == "random":
            sparsity = float(1 - Decimal(str(config.keep)))
            fixed = MaskedCopies(shape, BoostConfig(d=1, sparsity=sparsity), name, role, seed)
            self._drawn[name, role] = fixed.masks
            return fixed
        return self._learn(shape, name, role, bound)

    def _learn(self, shape: tuple[int, int], name: str, role: str, bound: float) -> LearnedMask:
        if self.attached.device.type == "meta":
            scores = torch.empty(shape, device="meta")
        else:
            generator = keyed_generator(self.attached.seed, name, role, "scores")
            scores = kaiming(shape, self.config.score_bound or bound, generator)
        mask = LearnedMask(shape, self.config.keep, scores)
        self._learned[f"{name}.mask_{role}.scores"] = mask
        self._bounds[f"{name}.mask_{role}.scores"] = bound
        return mask

    def prototype(self, group: str, name: str, make: Callable[[], Prototype]) -> Prototype:
        """What the modules of a group share; made by the first. Without sharing every module has its own."""
        key = self._key(group, name)
        self._groups[name] = group
        if key not in self._prototypes:
            self._prototypes[key] = make()
            self.attached.add_module(f"prototype.{key}", self._prototypes[key])
        return self._prototypes[key]

    def shared(self, group: str, name: str) -> dict[str, Tensor]:
        """What a module shares now, by role."""
        return self._prototypes[self._key(group, name)].shared()

    def _key(self, group: str, name: str) -> str:
        return group if self.config.share else name

    def finish(self) -> Attached:
        """Counts everything, gives scores their learning rate, and packs masks for storage."""
        self._count_prototypes()
        for name in self._learned:
            self._count_mask(name)
        if self.config.masks == "learned" and self.config.task_masks != "off":
            self.attached.on_tasks.append(self._add_tasks)
        self.attached.pack, self.attached.unpack = self._pack, self._unpack
        if self._learned:
            self.attached.one_way = "its masks are stored without their scores, so training cannot go on from them"
        elif self._made():
            self.attached.one_way = "it is stored without the network that made it, so training cannot go on from it"
        return self.attached

    def _add_tasks(self, tasks: int) -> None:
        """A mask a task for everything that layers share.

        Raises:
            InputError: nothing is shared.
        """
        if not self.config.share:
            raise InputError("share", False, "with task masks it must be true; task_masks=off goes without them")
        added: dict[tuple[str, str], list[LearnedMask]] = {}
        for name, mask in list(self._learned.items()):
            site, role = name.removesuffix(".scores").rsplit(".mask_", 1)
            key = self._groups[site], role
            if key not in added:
                added[key] = [self._task_mask(task, *key, mask, self._bounds[name]) for task in range(tasks)]
            mask.with_task = partial(self._in_task, added[key])

    def _task_mask(self, task: int, group: str, role: str, like: LearnedMask, bound: float) -> LearnedMask:
        name, (rows, cols) = f"task.{task}.{group}", like.scores.shape
        mask = self._learn((rows, cols), name, role, bound)
        masks = self.attached.modules.get(name)
        if masks is None:
            self.attached.add_module(name, masks := nn.Module())
        masks.add_module(f"mask_{role}", mask.to(self.attached.device))
        self._count_mask(f"{name}.mask_{role}.scores")
        return mask

    def _in_task(self, of_tasks: list[LearnedMask], layer: Tensor) -> Tensor:
        how = self.config.task_masks
        assert how != "off"
        return combine(layer, of_tasks[self.attached.task].values(), how)

    def _count_mask(self, name: str) -> None:
        """A mask's scores: they train at a rate of their own, and what is stored of them is a bit each."""
        site, role = name.removesuffix(".scores").rsplit(".", 1)
        bits = {"stored_bits": 1} if self.config.share else {"stored_bits": 1, "nominal_stored": 0.0}
        self.attached.add_tensor(site, f"{role}.scores", None, site, in_product=False, differs=bits)
        self.attached.groups[f"adapter.{name}"] = Group(rate=self.config.mask_learning_rate)

    def _count_prototypes(self) -> None:
        counted: set[int] = set()
        for key, prototype in self._prototypes.items():
            shared, site = prototype.shared(), f"prototype.{key}" if self.config.share else key
            for role, tensor in shared.items():
                self._count(key, role, tensor, site)
            for role, parameter in prototype.named_parameters():
                if prototype.made and id(parameter) not in counted:
                    counted.add(id(parameter))
                    self.attached.add_tensor(f"prototype.{key}", role, None, site, False, differs=NOT_STORED)

    def _count(self, key: str, role: str, tensor: Tensor, site: str) -> None:
        """What a prototype shares: dense FLOPs once a layer, as without masks."""
        config, size, prototype, module = self.config, tensor.numel(), self._prototypes[key], f"prototype.{key}"
        if tensor.dim() == 1:
            return self.attached.add_tensor(module, role, None, site, in_product=False)
        masks: list[Any] = [getattr(user, f"mask_{role}") for user in prototype.users.values()]
        stored, nominal, transform = size, float(size), None
        kept: Callable[[], Tensor] | None = None
        if config.masks == "random":
            # as they were drawn: the modules' own may lie on the meta device by now
            drawn = torch.cat([self._drawn.pop((user, role)) for user in prototype.users])
            stored, nominal = int(drawn.any(0).sum()), size * (1 - (1 - config.keep) ** len(masks))
            transform, kept = masks[0], lambda: _union(masks)
        elif config.masks == "learned" and not config.share:
            stored, nominal, kept = size - dropped_count(size, config.keep), config.keep * size, masks[0].chosen
        differs: dict[str, Any] = {"copies": len(masks), "multiplied": len(masks) * size}
        differs |= {"stored": stored, "nominal_stored": nominal}
        if prototype.made:
            differs |= {"kept": 0, "nominal_kept": 0.0}
        elif config.masks == "random":
            differs |= {"kept": stored, "nominal_kept": nominal}
        made = tensor if prototype.made else None
        return self.attached.add_tensor(module, role, transform, site, True, kept, differs, made)

    @torch.no_grad()
    def _pack(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Made prototypes in place of the tensors that make them, masks in place of scores."""
        packed = {name: value for name, value in tensors.items() if name not in self._learned}
        for key, prototype in self._made():
            packed = {name: value for name, value in packed.items() if not name.startswith(f"prototype.{key}.")}
            for role, value in prototype.shared().items():
                name = f"prototype.{key}.{role}"
                packed[name] = self.attached.worth_storing(f"adapter.{name}", value)
        if self._learned:
            packed[PACKED] = pack_bits(torch.cat([mask.chosen().flatten() for mask in self._learned.values()]))
        return packed

    def _made(self) -> list[tuple[str, Prototype]]:
        return [(key, prototype) for key, prototype in self._prototypes.items() if prototype.made]

    def _unpack(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Lets the attachment go on with what was stored, which the tensors then fill.

        Raises:
            InputError: no masks, or masks of another size or density.
        """
        tensors = self._unpack_masks(tensors) if self._learned else tensors
        for key, prototype in self._made():
            flat = Prototype({role: torch.zeros_like(value) for role, value in prototype.shared().items()})
            flat.users = prototype.users
            self._prototypes[key] = self.attached.modules[f"prototype.{key}"] = flat
        return tensors

    def _unpack_masks(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scores of 1 and 0 that choose what was stored."""
        counts = [mask.scores.numel() for mask in self._learned.values()]
        packed = tensors.pop(PACKED, None)
        if packed is None or packed.dtype != torch.uint8 or packed.numel() != -(-sum(counts) // 8):
            raise InputError("adapter", PACKED, f"it must hold one bit for each of {sum(counts)} weights")
        parts = unpack_bits(packed, sum(counts)).split(counts)
        for (name, mask), part in zip(self._learned.items(), parts, strict=True):
            kept = len(part) - dropped_count(len(part), mask.keep)
            if int(part.sum()) != kept:
                raise InputError("adapter", name, f"its mask must keep {kept} weights")
            tensors[name] = part.view(mask.scores.shape).to(mask.scores.dtype)
        return tensors


def _union(masks: list[MaskedCopies]) -> Tensor:
    return torch.stack([mask.masks.any(0) for mask in masks]).any(0)
