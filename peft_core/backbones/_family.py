"""What the engine knows of an architecture, as data: where its maps, adapter places and head are.

A family is one file of this folder with a module-level ``FAMILY``. Module paths are templates over ``{layer}``,
relative to the transformers model with its task head.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from peft_core.records import AdapterDefaults, PrefixPlace, Problem, Role, Site, SiteSelection

Pooling = Literal["first", "last", "encoder_first", "classifier_pooling"]
RELU = AdapterDefaults(nonlinearity="relu", std=0.02)


@dataclass(frozen=True)
class SitePattern:
    """A map of every layer. A fused projection holds `parts` equal blocks of output features; `part` counts from 0."""

    role: Role
    module: str
    name: str = ""
    """Last part of the site's name; empty: the role."""
    part: int = 0
    parts: int = 1
    content: str = ""
    """As in `records.Site`."""
    optional: bool = False
    """True for a map that only some models of the family have (a gated FFN); it is left out where it is absent."""
    selections: tuple[SiteSelection, ...] = ("qv", "qkvo", "six", "all-linear")
    """Those of its role's selections that it stands in: of a fused projection some take the parts, some the whole."""


@dataclass(frozen=True)
class PlacePattern:
    """A place for a bottleneck adapter in every layer; forms as in `records.AdapterPlace`."""

    after: Literal["attention", "cross_attention", "ffn"]
    module: str
    form: Literal["post_norm", "sublayer", "residual"]


@dataclass(frozen=True)
class PrefixPattern:
    """An attention of every layer that takes a prefix; forms as in `records.PrefixPlace`."""

    module: str
    after: Literal["attention", "cross_attention"] = "attention"
    form: Literal["interface", "projected"] = "interface"
    query: str = "q"
    """Name of the site that makes its queries."""
    key: str = "k"
    value: str = "v"
    bias: str = ""


@dataclass(frozen=True)
class Stack:
    """Equal layers in a row. Layers are numbered through all stacks of a model; names keep the stack's own count."""

    name: str
    """First part of the names of sites and places."""
    layers: str
    """Path of the module list that holds the layers."""
    sites: tuple[SitePattern, ...]
    pfeiffer: tuple[PlacePattern, ...]
    houlsby: tuple[PlacePattern, ...]
    prefixes: tuple[PrefixPattern, ...]
    prompted: bool = False
    """True where extra tokens can go behind the class token of every layer."""
    attentions: int = 1
    """Attention blocks in one layer."""
    after_attention: str = ""
    """Path of the first module behind a layer's attention, where all that a layer then does goes token by token through
    that module and what follows it; empty: it does not."""


@dataclass(frozen=True)
class TaskModel:
    """The transformers model for a problem. Its body and layers have the same paths as the classifier's."""

    auto_model: str
    """Name of the transformers auto class that builds it."""
    head: tuple[str, ...] = ()
    """Prefixes of its task head's parameter names; none where nothing of the head trains."""


SPAN = TaskModel("AutoModelForQuestionAnswering", ("qa_outputs.",))
CAUSAL = TaskModel("AutoModelForCausalLM")
SEQ2SEQ = TaskModel("AutoModelForSeq2SeqLM")


@dataclass(frozen=True)
class Family:
    """One architecture."""

    name: str
    model_types: tuple[str, ...]
    """Values of ``model_type`` in config.json."""
    modality: Literal["text", "image"]
    auto_model: str
    """Name of the transformers auto class that builds the model for classification and regression; empty for none."""
    body: str
    """Path of the headless model; empty where the model is its own body."""
    stacks: tuple[Stack, ...]
    embeddings: tuple[str, ...]
    """Paths of modules whose linear maps are not sites (embeddings, a language model's output map)."""
    head: tuple[str, ...]
    """Prefixes of the parameter names of the head for classification and regression, pooler included."""
    unused: tuple[str, ...] = ()
    """Starts of names in a pretrained file, without the body's prefix, that are no part of the body."""
    reader: str = ""
    """Path of the head where it is called on the features themselves; empty: transformers picks the token for it, by
    token ids, so rows with end tokens within (BART) or as padding (LLaMA) would be refused or misread."""
    tasks: Mapping[Problem, TaskModel] = field(default_factory=dict)
    """The models for the other problems that the architecture can do."""
    encoder_decoder: bool = False
    pooling: Pooling = "first"
    default_sites: SiteSelection = "qv"
    adapter_defaults: AdapterDefaults = RELU
    attention: Literal["sdpa", "eager"] | None = "sdpa"
    """Attention implementation; None: transformers' own choice."""
    hidden_field: str = "hidden_size"
    positions_field: str | None = "max_position_embeddings"
    """Config field with the number of positions; None for an architecture without a limit."""
    positions_reserved: int = 0
    """Positions that no token can have (RoBERTa counts from padding_idx + 1)."""
    special_tokens: int = 1
    """Positions of an image beside its patches."""
    depth_field: str = ""
    """Config field with the number of layers that run, where layers share their weights; empty: they do not."""
    required: tuple[tuple[str, object], ...] = ()
    """Config fields and the one value of each that the paths fit."""

    def task(self, problem: Problem) -> TaskModel | None:
        """The model for a problem, None where the architecture cannot do it."""
        if problem in ("classification", "regression"):
            return TaskModel(self.auto_model, self.head) if self.auto_model else None
        return self.tasks.get(problem)

    def problems(self) -> tuple[Problem, ...]:
        """What the architecture can be asked for. One without a head answers in words, so it gives no numbers."""
        every: tuple[Problem, ...] = ("classification", "regression", "span", "generation")
        found = tuple(problem for problem in every if self.task(problem) is not None)
        return tuple(problem for problem in found if problem != "regression" or self.head)

    def outside_body(self, name: str) -> bool:
        """True for a parameter of some head, or of another part of a pretrained file that the body does not have."""
        heads = (prefix for task in self.tasks.values() for prefix in task.head)
        below = name.removeprefix(self.body + ".") if self.body else name
        return name.startswith((*self.head, *heads)) or below.startswith((*self.head, *self.unused))


def prefix_place(
    pattern: PrefixPattern, stack: Stack, index: int, layer: int, sites: Mapping[str, Site], heads: int
) -> PrefixPlace:
    """The place of a pattern in a layer of a stack, among the model's sites by name. heads: of its queries."""
    stem = f"{stack.name}.{index}."
    query, key, value = (sites[stem + name] for name in (pattern.query, pattern.key, pattern.value))
    groups = query.out_features // key.out_features
    return PrefixPlace(
        name=f"{stack.name}.{index}.{pattern.after}",
        module=pattern.module.format(layer=index),
        layer=layer,
        after=pattern.after,
        group=f"{stack.name}.{pattern.after}",
        form=pattern.form,
        heads=heads // groups,
        groups=groups,
        width=key.out_features,
        key=key.module,
        value=value.module,
        bias=pattern.bias,
    )


@cache
def families() -> tuple[Family, ...]:
    """All families, by file name."""
    names = sorted(entry.name for entry in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names if not name.startswith("_")]
    return tuple(module.FAMILY for module in modules if hasattr(module, "FAMILY"))


def family_of(model_type: str | None) -> Family | None:
    """The family of a config's ``model_type``, None where the engine does not know it."""
    return next((family for family in families() if model_type in family.model_types), None)


def known_architectures() -> str:
    """All model types the engine knows, for messages."""
    return ", ".join(sorted(kind for family in families() for kind in family.model_types))
