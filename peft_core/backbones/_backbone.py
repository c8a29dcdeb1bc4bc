"""A frozen transformers model as methods, tasks and training see it (`records.Backbone`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from peft_core.backbones._catalog import task_for
from peft_core.backbones._checkpointing import Recompute, checkpointed
from peft_core.backbones._family import Family, PlacePattern, SitePattern, Stack, prefix_place
from peft_core.backbones._first_token import first_token_from
from peft_core.backbones._generation import greedy, real_tokens
from peft_core.backbones._generic import planned
from peft_core.backbones._linear import is_linear, linear_shape
from peft_core.records import (
    AdapterDefaults,
    AdapterPlace,
    InputError,
    PrefixPlace,
    Problem,
    PromptPlace,
    Role,
    Site,
    SiteSelection,
)

ROLES: dict[str, tuple[Role, ...]] = {
    "qv": ("q", "v"),
    "qkvo": ("q", "k", "v", "o"),
    "six": ("q", "k", "v", "qkv", "o", "ffn_in", "ffn_out"),
    "all-linear": ("q", "k", "v", "qkv", "o", "ffn_in", "ffn_out"),
}


class TransformerBackbone:
    """A transformers model with the head of a problem, its parameters frozen, in evaluation mode.

    Args:
        model_id: the id or folder it was loaded from.
        family: the architecture's data.
        model: the transformers model, head included.
        processor: tokenizer or image processor; None on the meta device.
        max_length: most tokens of a row, None for no limit.
        outputs: width of the head, for classification and regression.
        problem: what the model is asked for.
        label_tokens: for a family without a head, the vocabulary's entries that stand for the classes; None: those
            after the special ones.

    Raises:
        InputError: the family cannot do the problem.
    """

    def __init__(
        self,
        model_id: str,
        family: Family,
        model: nn.Module,
        *,
        processor: Any = None,
        max_length: int | None = None,
        outputs: int = 2,
        problem: Problem = "classification",
        label_tokens: Sequence[int] | None = None,
    ) -> None:
        self.id = model_id
        family = planned(family, model, problem, model_id)
        self.architecture = family
        self.family = family.name
        self.modality: Literal["text", "image"] = family.modality
        self.encoder_decoder = family.encoder_decoder
        self.model = model.eval().requires_grad_(False)
        self.config: Any = model.config
        self.processor = processor
        self.max_length = max_length
        self.outputs = outputs
        self.problem: Problem = problem
        self.head = task_for(model_id, family, problem).head
        self.label_tokens = tuple(label_tokens) if label_tokens is not None else tuple(range(3, 3 + outputs))
        self.hidden_size: int = getattr(self.config, family.hidden_field)
        self.default_sites: SiteSelection = family.default_sites
        self.adapter_defaults: AdapterDefaults = family.adapter_defaults
        self.layers = sum(self._depth(stack) for stack in family.stacks)
        self._first_token = self._read_first_token()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def body(self) -> nn.Module:
        """The model without its task head."""
        return self.model.get_submodule(self.architecture.body)

    @property
    def image_tokens(self) -> int:
        """Positions an image takes, those beside its patches included; 0 for text."""
        if self.modality == "text":
            return 0
        size, patch = self.config.image_size, self.config.patch_size
        return (size // patch) ** 2 + self.architecture.special_tokens

    @property
    def passes(self) -> float:
        """How often a layer runs in one forward, in the mean: above 1 only where layers share their weights."""
        field = self.architecture.depth_field
        return getattr(self.config, field) / self.layers if field else 1.0

    # --- places ---------------------------------------------------------------------------------------------

    def sites(self, selection: SiteSelection | None = None) -> tuple[Site, ...]:
        """Frozen maps that a weight update can be added to, layer by layer (None: the architecture's default set).

        `all-linear` adds every other linear map of the body outside its embeddings, as role "other". With a generic
        plan all maps are of that role; "six", the usual maps of a layer, are then all of them, and there is no "qv".
        """
        chosen = selection or self.default_sites
        if chosen == "six" and not self._named_sites:
            return self._other_sites
        named = tuple(
            site for pattern, site in self._patterned if site.role in ROLES[chosen] and chosen in pattern.selections
        )
        return named + self._other_sites if chosen == "all-linear" else named

    def adapter_places(self, kind: Literal["pfeiffer", "houlsby"]) -> tuple[AdapterPlace, ...]:
        """Places of bottleneck adapters, in the order of the forward pass."""
        places = []
        for stack, index, layer in self._layers():
            patterns: tuple[PlacePattern, ...] = stack.pfeiffer if kind == "pfeiffer" else stack.houlsby
            for pattern in patterns:
                module = pattern.module.format(layer=index)
                name = f"{stack.name}.{index}.{pattern.after}"
                places.append(AdapterPlace(name, module, layer, pattern.after, pattern.form, self.hidden_size))
        return tuple(places)

    def prefix_places(self) -> tuple[PrefixPlace, ...]:
        """Attentions that take a prefix, in the order of the forward pass."""
        sites, heads = {site.name: site for site in self._named_sites}, self.config.num_attention_heads
        return tuple(
            prefix_place(pattern, stack, index, layer, sites, heads)
            for stack, index, layer in self._layers()
            for pattern in stack.prefixes
        )

    def prompt_places(self) -> tuple[PromptPlace, ...]:
        """Layers that take extra tokens behind the class token; none where an architecture has no such token."""
        return tuple(
            PromptPlace(
                f"{stack.name}.{index}", f"{stack.layers}.{index}", layer, self.hidden_size, self.config.patch_size
            )
            for stack, index, layer in self._layers()
            if stack.prompted
        )

    def _depth(self, stack: Stack) -> int:
        modules = self.model.get_submodule(stack.layers)
        assert isinstance(modules, nn.ModuleList)
        return len(modules)

    def _layers(self) -> Iterator[tuple[Stack, int, int]]:
        """(stack, index within the stack, index through the model)."""
        layer = 0
        for stack in self.architecture.stacks:
            for index in range(self._depth(stack)):
                yield stack, index, layer
                layer += 1

    @property
    def _named_sites(self) -> tuple[Site, ...]:
        return tuple(site for _, site in self._patterned)

    @cached_property
    def _patterned(self) -> tuple[tuple[SitePattern, Site], ...]:
        """The sites that the family names, with their patterns."""
        modules = dict(self.model.named_modules())
        found = (
            (pattern, self._site(pattern, stack, index, layer, modules))
            for stack, index, layer in self._layers()
            for pattern in stack.sites
        )
        return tuple((pattern, site) for pattern, site in found if site is not None)

    @staticmethod
    def _site(
        pattern: SitePattern, stack: Stack, index: int, layer: int, modules: Mapping[str, nn.Module]
    ) -> Site | None:
        path = pattern.module.format(layer=index)
        if pattern.optional and path not in modules:
            return None
        inputs, outputs, transposed = linear_shape(modules[path])
        outputs //= pattern.parts
        name = f"{stack.name}.{index}.{pattern.name or pattern.role}"
        content = pattern.content.format(layer=index)
        return Site(name, path, layer, pattern.role, inputs, outputs, pattern.part * outputs, transposed, content)

    @cached_property
    def _other_sites(self) -> tuple[Site, ...]:
        taken = {site.module for site in self._named_sites}
        found = []
        for path, module in self.model.named_modules():
            if path in taken or not is_linear(module) or not self._in_layers(path):
                continue
            inputs, outputs, transposed = linear_shape(module)
            found.append(Site(path, path, self._layer_of(path), "other", inputs, outputs, 0, transposed))
        return tuple(found)

    def _in_layers(self, path: str) -> bool:
        outside = (*self.architecture.embeddings, *(prefix.rstrip(".") for prefix in self.head))
        return not any(path == prefix or path.startswith(prefix + ".") for prefix in outside)

    def _layer_of(self, path: str) -> int:
        for stack, index, layer in self._layers():
            if path.startswith(f"{stack.layers}.{index}."):
                return layer
        return self.layers - 1

    # --- parameters -----------------------------------------------------------------------------------------

    @cached_property
    def _parameters(self) -> dict[str, torch.Size]:
        """Names and shapes as the model was made, before methods put theirs in; tied ones once."""
        return {name: parameter.shape for name, parameter in self.model.named_parameters()}

    def head_parameters(self) -> tuple[str, ...]:
        """Names of the task head's parameters, pooler included where it belongs to the head; none for generation."""
        return tuple(name for name in self._parameters if name.startswith(self.head))

    def body_parameters(self) -> tuple[str, ...]:
        """Names of all parameters outside the head, embeddings included."""
        return tuple(name for name in self._parameters if not name.startswith(self.head))

    def bias_parameters(self) -> tuple[str, ...]:
        """Names of all bias vectors outside the head, LayerNorm biases included."""
        return tuple(name for name in self.body_parameters() if name.endswith(".bias") and self._is_vector(name))

    def _is_vector(self, name: str) -> bool:
        return len(self._parameters[name]) == 1

    def parameter_count(self) -> int:
        """Parameters with embeddings, without pooler and head (the papers' divisor), the same for every problem."""
        outside = self.architecture.outside_body
        return sum(shape.numel() for name, shape in self._parameters.items() if not outside(name))

    # --- forward --------------------------------------------------------------------------------------------

    def _read_first_token(self) -> RemovableHandle | None:
        """Where the head reads the first token alone, the last layer computes no other behind its attention."""
        reads_one = self.problem in ("classification", "regression") and self.architecture.pooling == "first"
        stacks = self.architecture.stacks
        if not reads_one or self.layers < 2 or not stacks[-1].after_attention:
            return None
        path = stacks[-1].after_attention.format(layer=self._depth(stacks[-1]) - 1)
        return first_token_from(self.model.get_submodule(path))

    def compute_all_tokens(self) -> None:
        """From now on the last layer computes every token, as transformers does, also those that no head reads."""
        if self._first_token is not None:
            self._first_token.remove()

    def features(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the head reads, (rows, hidden): the first token of the last layer, for a decoder the last real token.

        ModernBERT's config may say the mean over the real tokens instead.
        """
        body = self.body
        if self.architecture.pooling == "encoder_first":
            body = body.get_encoder()  # type: ignore[operator]
            batch = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
        hidden = body(**batch).last_hidden_state
        if self.architecture.pooling == "classifier_pooling" and self.config.classifier_pooling == "mean":
            real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).unsqueeze(-1)
            return (hidden * real).sum(dim=1) / real.sum(dim=1)
        if self.architecture.pooling != "last":
            return hidden[:, 0]
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return hidden[rows, self._last_positions(batch)]

    def _last_positions(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Index of the last token that is not padding, (rows,)."""
        real = real_tokens(self, batch)
        positions = torch.arange(real.shape[1], device=real.device)
        return (positions * real.long()).argmax(dim=1)

    def logits(self, batch: Mapping[str, torch.Tensor], label_tokens: Sequence[int] | None = None) -> torch.Tensor:
        """Output of the head, (rows, outputs).

        Spans: the scores of start and end at every token, (rows, tokens, 2). Generation: those of the next token,
        (rows, target tokens, vocabulary), over `decoder_input_ids` where an encoder reads, else over `input_ids`.
        A family without a head does classification by label words: the logits of their first tokens at the decoder's
        first position, or all logits where `decoder_input_ids` are in the batch. label_tokens: those of another task.
        """
        if self.problem == "span":
            answer = self.model(**batch)
            return torch.stack((answer.start_logits, answer.end_logits), dim=-1)
        if self.architecture.reader and self.problem != "generation":
            return self.model.get_submodule(self.architecture.reader)(self.features(batch))
        if self.head or self.problem == "generation" or "decoder_input_ids" in batch:
            return self.model(**batch).logits
        start = torch.full((len(batch["input_ids"]), 1), self.decoder_start_token, device=batch["input_ids"].device)
        answers = self.model(**batch, decoder_input_ids=start).logits[:, 0]
        return answers[:, list(label_tokens or self.label_tokens)]

    def checkpointed(self, recompute: Recompute) -> AbstractContextManager[None]:
        """Within it layers keep only their inputs for the backward pass, which belongs within it, too."""
        paths = (f"{stack.layers}.{index}" for stack, index, _ in self._layers())
        layers = {id(layer): layer for layer in map(self.model.get_submodule, paths)}
        return checkpointed(list(layers.values()), recompute)

    @property
    def decoder_start_token(self) -> int:
        """Token in front of what an encoder-decoder writes: its config's own, else padding.

        Raises:
            InputError: the model is no encoder-decoder.
        """
        if not self.encoder_decoder:
            raise InputError("model", self.id, "it is no encoder-decoder, so it has no token that starts an answer")
        start = getattr(self.config, "decoder_start_token_id", None)
        return start if start is not None else self.config.pad_token_id

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end an answer: those of the model's files and the tokenizer's own."""
        settings = getattr(self.model, "generation_config", None)
        stated = (getattr(settings, "eos_token_id", None), getattr(self.config, "eos_token_id", None))
        own = getattr(self.processor, "eos_token_id", None)
        tokens = [token for entry in (*stated, own) for token in (entry if isinstance(entry, list) else [entry])]
        return tuple(sorted({token for token in tokens if token is not None}))

    def generate(self, batch: Mapping[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers, row by row: at most `max_new_tokens` token ids, without start, end and padding tokens.

        The most probable token at every step until one of `end_tokens`. Padding may stand on either side of a row.
        What a method has put into the model takes part: with a prefix the cache of keys and values still holds the
        real tokens' alone.

        Args:
            batch: input_ids (rows, tokens), attention_mask (rows, tokens).

        Raises:
            InputError: the model was not loaded for generation, or has too few positions for prompt and answer.
        """
        if self.problem != "generation":
            raise InputError("problem", self.problem, "only a model that was loaded for generation writes answers")
        return greedy(self, batch, max_new_tokens)
