"""Any PyTorch module as a backbone: its linear maps are sites, and there is no other place in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import Any, Literal, NoReturn

import torch
from torch import nn

from peft_core.backbones._linear import is_linear, linear_shape
from peft_core.records import (
    AdapterDefaults,
    AdapterPlace,
    InputError,
    PrefixPlace,
    Problem,
    PromptPlace,
    Site,
    SiteSelection,
)


class PlainBackbone:
    """A module of one's own, frozen but for `trained` of it, as methods that adapt linear maps see it.

    Args:
        model: holds at least one nn.Linear (or transformers' Conv1D) whose forward runs.
        sites: patterns of paths such as ``blocks.*.fc1``; None: every linear map outside `trained`.
        trained: paths of submodules or parameters that train themselves, such as a new head.

    Raises:
        InputError: a pattern or path that fits nothing.
    """

    id = "the module"
    family = "plain"
    modality: Literal["text", "image"] = "text"
    problem: Problem = "regression"
    encoder_decoder = False
    default_sites: SiteSelection = "all-linear"
    adapter_defaults = AdapterDefaults("relu", 0.02)
    processor: Any = None
    max_length: int | None = None
    image_tokens = 0
    passes = 1.0
    layers = 1

    def __init__(self, model: nn.Module, sites: Sequence[str] | None = None, trained: Sequence[str] = ()) -> None:
        self.model = model
        self._parameters = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._trained = tuple(name for name in self._parameters if any(_within(name, path) for path in trained))
        for path in trained:
            if not any(_within(name, path) for name in self._parameters):
                raise InputError("train_also", path, "the module has no parameter or submodule of this name")
        self._sites = tuple(_sites(model, sites, trained))
        if not self._sites:
            raise InputError("sites", sites, "the module has no linear map to adapt")
        self.hidden_size = self._sites[0].in_features

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that train themselves."""
        return self._trained

    @property
    def decoder_start_token(self) -> int:
        self._nothing()

    def sites(self, selection: SiteSelection | None = None) -> tuple[Site, ...]:
        """All of them; nothing is known of queries and values."""
        return self._sites if selection in (None, "six", "all-linear") else ()

    def adapter_places(self, kind: Literal["pfeiffer", "houlsby"]) -> tuple[AdapterPlace, ...]:
        return ()

    def prefix_places(self) -> tuple[PrefixPlace, ...]:
        return ()

    def prompt_places(self) -> tuple[PromptPlace, ...]:
        return ()

    def head_parameters(self) -> tuple[str, ...]:
        return ()

    def body_parameters(self) -> tuple[str, ...]:
        return tuple(self._parameters)

    def bias_parameters(self) -> tuple[str, ...]:
        return tuple(name for name, shape in self._parameters.items() if name.endswith("bias") and len(shape) == 1)

    def parameter_count(self) -> int:
        return sum(shape.numel() for shape in self._parameters.values())

    def features(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._nothing()

    def logits(self, batch: Mapping[str, torch.Tensor], label_tokens: Sequence[int] | None = None) -> torch.Tensor:
        self._nothing()

    def checkpointed(self, recompute: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
        self._nothing()

    def generate(self, batch: Mapping[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
        self._nothing()

    def _nothing(self) -> NoReturn:
        raise InputError("model", self.id, "call the module itself; nothing is known of its inputs and outputs")


def _within(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _sites(model: nn.Module, patterns: Sequence[str] | None, trained: Sequence[str]) -> list[Site]:
    """Linear maps that run as modules: nn.MultiheadAttention takes its projections' weights by itself."""
    inside = [path for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    found: dict[str, Site] = {}
    for path, module in model.named_modules():
        taken = any(_within(path, other) for other in inside) or any(_within(path, other) for other in trained)
        if is_linear(module) and not taken:
            inputs, outputs, transposed = linear_shape(module)
            found[path] = Site(path or "weight", path, 0, "other", inputs, outputs, 0, transposed)
    if patterns is None:
        return list(found.values())
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in found):
            shown = ", ".join(list(found)[:8])
            raise InputError("sites", pattern, f"no linear map is called so; there are {shown}")
    return [site for path, site in found.items() if any(fnmatchcase(path, pattern) for pattern in patterns)]
