"""A plan for an architecture without a file of its own: the linear maps that its layers run, for the low-rank methods.

Where adapters and prefixes would go cannot be read off a model, so those find no place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from peft_core.backbones._family import CAUSAL, SEQ2SEQ, SPAN, Family, Stack, TaskModel
from peft_core.backbones._linear import is_linear
from peft_core.records import InputError, Problem

PROBE_TOKENS = 8


@cache
def generic_family(model_type: str) -> Family | None:
    """What is known of a text architecture before a model of it exists; None where transformers has no such one."""
    from transformers.models.auto import modeling_auto as auto

    causal = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    tasks: dict[Problem, TaskModel] = {}
    if model_type in auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES:
        tasks["span"] = SPAN
    if model_type in causal:  # an encoder's causal model looks ahead
        tasks["generation"] = CAUSAL
    if model_type in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        tasks["generation"] = SEQ2SEQ
    classifies = model_type in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if not tasks and not classifies:
        return None
    return Family(
        name=model_type,
        model_types=(model_type,),
        modality="text",
        auto_model="AutoModelForSequenceClassification" if classifies else "",
        body="",
        stacks=(),
        embeddings=(),
        head=(),
        tasks=tasks,
        default_sites="all-linear",
        attention=None,
    )


def planned(family: Family, model: nn.Module, problem: Problem, model_id: str) -> Family:
    """A family without layers completed from a model of it; another family as it is.

    A map counts where a short forward runs it as a module: an update of one whose weight the model takes by itself
    would do nothing. On the meta device, where some models do not run, all maps then count.

    Raises:
        InputError: body and head of the model cannot be told apart, or it has no layers.
    """
    if family.stacks:
        return family
    config: Any = model.config
    task = family.task(problem)
    assert task is not None
    body = getattr(model, "base_model_prefix", "")
    if not isinstance(getattr(model, body or "-", None), nn.Module):
        raise InputError("model", model_id, f"the body of a {family.name} model cannot be told from its head")
    stacks = tuple(_stacks(model.get_submodule(body), body))
    if not stacks:
        raise InputError("model", model_id, f"a {family.name} model has no layers with linear maps")
    beside = tuple(name for name, _ in model.named_children() if name != body)
    pooler = (f"{body}.pooler",) if hasattr(model.get_submodule(body), "pooler") else ()
    head = () if problem == "generation" else tuple(f"{name}." for name in (*beside, *pooler))
    return replace(
        family,
        body=body,
        stacks=stacks,
        embeddings=(*beside, *pooler, *_no_sites(model, body)),
        head=head,
        tasks={problem: replace(task, head=head)},
        unused=tuple(f"{name}." for name in beside) if problem == "generation" else (),
        encoder_decoder=bool(config.is_encoder_decoder),
        pooling=_pooling(config, beside),
        hidden_field=next(name for name in ("hidden_size", "d_model", "n_embd", "dim") if hasattr(config, name)),
        positions_reserved=_reserved(model),
    )


def _stacks(body: nn.Module, path: str) -> Iterator[Stack]:
    """The outermost lists of modules with linear maps in them, as layers without places."""
    for name, child in body.named_children():
        here = f"{path}.{name}"
        if isinstance(child, nn.ModuleList):
            if any(is_linear(module) for module in child.modules()):
                yield Stack(name=here, layers=here, sites=(), pfeiffer=(), houlsby=(), prefixes=())
        else:
            yield from _stacks(child, here)


def _no_sites(model: nn.Module, body: str) -> Iterator[str]:
    """Paths of the body's embeddings, and of linear maps that the model never runs as modules."""
    run = _maps_that_run(model)
    for path, module in model.get_submodule(body).named_modules(prefix=body):
        if "embed" in path.rpartition(".")[2] or (is_linear(module) and run and _kind(model, path) not in run):
            yield path


def _kind(model: nn.Module, path: str) -> tuple[type, str]:
    """A map's name and the class it is in: what is not run in one layer may be in another (experts)."""
    parent, _, name = path.rpartition(".")
    return type(model.get_submodule(parent)), name


@torch.no_grad()
def _maps_that_run(model: Any) -> set[tuple[type, str]]:
    config, seen = model.config, set()
    end = config.eos_token_id if isinstance(config.eos_token_id, int) else PROBE_TOKENS
    tokens = torch.tensor([[*range(1, PROBE_TOKENS), end]]).clamp_max(config.vocab_size - 1).to(model.device)
    inputs = {"input_ids": tokens} | ({"decoder_input_ids": tokens} if config.is_encoder_decoder else {})
    with ExitStack() as undo:
        for path, module in model.named_modules():
            if is_linear(module):
                kind = _kind(model, path)
                hook = module.register_forward_hook(lambda *_, kind=kind: seen.add(kind))
                undo.callback(hook.remove)
        training = model.training
        try:
            model.eval()(**inputs)
        except RuntimeError:
            if model.device.type != "meta":
                raise
            return set()
        finally:
            model.train(training)
    return seen


def _pooling(config: Any, beside: tuple[str, ...]) -> Any:
    """The token that stands for a text: transformers calls a decoder's head `score`, and reads the last one with it."""
    if config.is_encoder_decoder:
        return "encoder_first"
    return "last" if {"score", "lm_head"} & set(beside) else "first"


def _reserved(model: nn.Module) -> int:
    """Positions that no token can have, where positions count from behind the padding token's id."""
    tables = (
        module for name, module in model.named_modules() if "position" in name and isinstance(module, nn.Embedding)
    )
    return max((table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0)
