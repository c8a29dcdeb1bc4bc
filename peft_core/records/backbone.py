"""What a backbone offers to methods, tasks and training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

SiteSelection = Literal["qv", "qkvo", "six", "all-linear"]
Problem = Literal["classification", "regression", "span", "generation"]
"""What a model is asked for: a class, a number, the start and end of an answer in its input, or text of its own."""
Role = Literal["q", "k", "v", "qkv", "o", "ffn_in", "ffn_out", "other"]
"""What a map makes; `qkv`: queries, keys and values at once, where a fused projection counts as one map."""


@dataclass(frozen=True)
class Site:
    """A frozen map y = W x + b that a weight update can be added to.

    A fused projection (GPT-2's c_attn) is several sites of one module, of which a selection takes the parts or the
    whole: `offset` is the first output feature.
    """

    name: str
    module: str
    layer: int
    role: Role
    in_features: int
    out_features: int
    offset: int = 0
    transposed: bool = False
    """True where the module keeps its weight as (in, out)."""
    content: str = ""
    """For a map that also transforms a table of relative positions: the module whose first argument is its content."""


@dataclass(frozen=True)
class AdapterPlace:
    """A place where a bottleneck adapter goes (METHODS.md, Sites).

    form `post_norm`: `module` is a LayerNorm over z + x; its output becomes LN(z + x + A(LN(z + x))).
    form `sublayer`: `module` gives z, which becomes z + A(z). form `residual`: `module` gives y = z + x, which
    becomes y + A(y).
    """

    name: str
    module: str
    layer: int
    after: Literal["attention", "cross_attention", "ffn"]
    form: Literal["post_norm", "sublayer", "residual"]
    width: int


@dataclass(frozen=True)
class PrefixPlace:
    """An attention that takes extra keys and values in front of its own (METHODS.md, Sites).

    form `interface`: `module` hands keys and values to transformers' attention interface. form `projected`: it does
    not; rows go in front of what its maps at the paths `key` and `value` give, its second argument is the mask, and its
    method `bias`, which scores relative positions, gets zero columns for them.
    """

    name: str
    module: str
    layer: int
    after: Literal["attention", "cross_attention"]
    group: str
    """Equal attentions of one stack: their prefixes are one set."""
    form: Literal["interface", "projected"]
    heads: int
    """Heads of keys."""
    width: int
    """Features of a key, all heads together."""
    key: str
    value: str
    bias: str
    groups: int = 1
    """Heads of queries that share a head of keys (grouped-query attention)."""


@dataclass(frozen=True)
class PromptPlace:
    """A layer that takes extra tokens behind the class token. `patch`: side of an image patch, in pixels."""

    name: str
    module: str
    layer: int
    width: int
    patch: int


@dataclass(frozen=True)
class AdapterDefaults:
    """Initialisation and nonlinearity of bottleneck adapters on an architecture."""

    nonlinearity: str
    std: float


class Backbone(Protocol):
    """A frozen transformer with a task head, as methods, tasks and training see it."""

    id: str
    family: str
    modality: Literal["text", "image"]
    problem: Problem
    encoder_decoder: bool
    """True where a decoder answers what an encoder reads; its batch holds `decoder_input_ids` for generation."""
    model: torch.nn.Module
    hidden_size: int
    layers: int
    default_sites: SiteSelection
    adapter_defaults: AdapterDefaults
    processor: Any
    max_length: int | None

    @property
    def image_tokens(self) -> int:
        """Positions that one image takes, those beside its patches included."""
        ...

    @property
    def passes(self) -> float:
        """How often a layer runs in one forward, in the mean: above 1 only where layers share their weights."""
        ...

    @property
    def decoder_start_token(self) -> int:
        """Token in front of what an encoder-decoder writes."""
        ...

    def sites(self, selection: SiteSelection | None = None) -> tuple[Site, ...]: ...

    def adapter_places(self, kind: Literal["pfeiffer", "houlsby"]) -> tuple[AdapterPlace, ...]: ...

    def prefix_places(self) -> tuple[PrefixPlace, ...]: ...

    def prompt_places(self) -> tuple[PromptPlace, ...]: ...

    def head_parameters(self) -> tuple[str, ...]:
        """Names of the task head's parameters in `model` (pooler included where it belongs to the head).

        None for generation: the map onto the vocabulary is a frozen part of the model.
        """
        ...

    def bias_parameters(self) -> tuple[str, ...]:
        """Names of all bias vectors outside the head, LayerNorm biases included."""
        ...

    def body_parameters(self) -> tuple[str, ...]:
        """Names of all parameters outside the head, embeddings included."""
        ...

    def parameter_count(self) -> int:
        """Parameters with embeddings, without pooler and head (the papers' divisor)."""
        ...

    def features(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """First token of the last layer, (rows, hidden)."""
        ...

    def logits(self, batch: Mapping[str, torch.Tensor], label_tokens: Sequence[int] | None = None) -> torch.Tensor:
        """Output of the head, (rows, outputs).

        For spans (rows, tokens, 2), start and end; for generation (rows, target tokens, vocabulary). label_tokens: for
        a model without a head, the tokens that stand for a task's classes; None: those of the task it was loaded for.
        """
        ...

    def checkpointed(self, recompute: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
        """Within it layers keep only their inputs for the backward pass, which belongs within it, too.

        recompute: called in the forward pass of a layer; gives a context for its second computation.
        """
        ...

    def generate(self, batch: Mapping[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers by token id, row by row, without start token, end token and padding."""
        ...
