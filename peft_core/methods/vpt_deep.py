"""Visual prompt tuning, deep: l trained tokens behind the class token in front of every layer.

Jia et al. 2022, "Visual Prompt Tuning": [x_i, _, E_i] = layer_i([x_(i-1), P_(i-1), E_(i-1)]), i = 1 ... L; what a layer
makes of its prompts is dropped. P ~ U(+-sqrt(6 / (3 patch^2 + h))), without positions; L l h parameters; the head reads
the class token. Image encoders with a class token only.
Prompts multiply no token; they are more tokens. So their FLOPs, executed and nominal alike, are what l more tokens cost
in a layer, spread over the image's own tokens; three times that in training is more than it is, because a prompt's way
through frozen maps has no weight gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from peft_core.methods._contract import Attached, Method, MethodConfig
from peft_core.methods._fold_slots import Slots
from peft_core.methods._modules import kaiming, keyed_generator
from peft_core.metrics.flops import extra_token_flops
from peft_core.records import Backbone, InputError, PromptPlace


class Config(MethodConfig):
    """Options of deep visual prompt tuning."""

    free: ClassVar[str | None] = "length"
    learning_rate: float = Field(9e-2, gt=0, le=10, description="peak learning rate of this method")
    length: int = Field(8, ge=1, le=4096, description="prompts l of every layer")


class Prompts(nn.Module):
    """P (l, h): the prompts of one layer."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.P = nn.Parameter(initial)

    def insert(self, skip: int, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Puts the prompts behind the class token of a layer's input (rows, tokens, h), in place of `skip` tokens."""
        hidden, *others = args
        prompts = self.P.to(hidden.dtype).expand(len(hidden), -1, -1)
        return (torch.cat((hidden[:, :1], prompts, hidden[:, 1 + skip :]), dim=1), *others)

    def remove(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """A layer's output without the tokens at the prompts' places."""
        return torch.cat((output[:, :1], output[:, 1 + len(self.P) :]), dim=1)


@dataclass(frozen=True)
class InLayer:
    """One run's prompts in a layer, as folds see them (`_fold_slots.Foldable`)."""

    place: PromptPlace
    prompts: Prompts
    skip: int
    last: bool
    apart = None

    @property
    def tokens(self) -> int:
        return len(self.prompts.P)

    @property
    def size(self) -> int:
        return len(self.prompts.P)

    @contextmanager
    def folded(self, model: nn.Module, slots: Slots, members: Mapping[int, InLayer]) -> Iterator[None]:
        """Within it every slot's rows see the prompts of its member. All members have equally many."""

        def insert(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, *others = args
            prompts = torch.stack([members[slot].prompts.P for slot in slots.now]).to(hidden.dtype)
            rows = prompts.repeat_interleave(slots.each(hidden), 0)
            return (torch.cat((hidden[:, :1], rows, hidden[:, 1 + self.skip :]), dim=1), *others)

        layer = model.get_submodule(self.place.module)
        with ExitStack() as undo:
            undo.callback(layer.register_forward_pre_hook(insert).remove)
            if self.last:
                undo.callback(layer.register_forward_hook(self.prompts.remove).remove)
            yield


@contextmanager
def prompted(layer: nn.Module, prompts: Prompts, skip: int, last: bool) -> Iterator[None]:
    """Within it a layer sees its prompts. skip: prompt outputs of the layer before that are dropped."""
    with ExitStack() as undo:
        undo.callback(layer.register_forward_pre_hook(partial(prompts.insert, skip)).remove)
        if last:
            undo.callback(layer.register_forward_hook(prompts.remove).remove)
        yield


def attach(backbone: Backbone, config: Config, generator: torch.Generator) -> Attached:
    """Prompts in front of every layer.

    Raises:
        InputError: the architecture has no class token with image patches behind it.
    """
    places = backbone.prompt_places()
    if not places:
        raise InputError("method", "vpt_deep", f"{backbone.id} is no image encoder with a class token")
    attached = Attached(backbone, generator.initial_seed())
    for place in places:
        prompts = _prompts(place, config.length, attached.seed)
        layer = backbone.model.get_submodule(place.module)
        skip = 0 if place is places[0] else config.length
        none = Prompts(torch.empty(0, place.width)).to(attached.device)
        attached.add_within(
            place.name,
            prompts,
            partial(prompted, layer, prompts, skip, place is places[-1]),
            partial(prompted, layer, none, 0, False),
            InLayer(place, prompts, skip, place is places[-1]),
        )
        flops = extra_token_flops(backbone, place.layer, config.length)
        attached.add_tensor(place.name, "P", None, place.name, in_product=False, differs={"extra_flops": flops})
    return attached


def _prompts(place: PromptPlace, length: int, seed: int) -> Prompts:
    bound = (6 / (3 * place.patch**2 + place.width)) ** 0.5
    return Prompts(kaiming((length, place.width), bound, keyed_generator(seed, place.name, "P")))


METHOD = Method(
    id="vpt_deep",
    title="VPT-Deep",
    family="prompt",
    source="Jia et al. 2022",
    Config=Config,
    attach=attach,
    zero_init=False,
    modalities=("image",),
)
