"""A prefix as a folder of PEFT's prefix tuning, where that computes the same: decoders with rotary positions.

There a prefix is the beginning of the cache, so the tokens behind it stand L positions later than ours do. Scores
between tokens depend on distances alone; those with our keys, which have no position, stay what they are when every
stored key is turned by L positions: (R(p + L) q) · (R(L) k) = (R(p) q) · k, with R the rotation of a position.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peft_core.export.folders import write_json
from peft_core.export.names import public_name
from peft_core.export.peft_format import CONFIG, WEIGHTS, finite, head_modules, save_tensors, task_type
from peft_core.export.recipe import Trained
from peft_core.methods import get_method

FIXED = ("default", "linear", "llama3")
"""Kinds of rotary positions whose frequencies do not depend on the length of the input."""


def prefix_fits(trained: Trained) -> bool:
    """Whether the adapter is a prefix that PEFT's format holds, with equal outputs."""
    return get_method(trained.recipe.method).family == "prefix" and obstacle(trained) is None


def obstacle(trained: Trained) -> str | None:
    """Why the outputs of a prefix would differ on this architecture, a sentence's end; None where they are equal."""
    backbone, rotary = trained.backbone, _rotary(trained)
    if backbone.encoder_decoder:
        return "PEFT puts a prefix at the beginning of the decoder's cache, and ours are in the encoder too"
    if "past_key_values" not in inspect.signature(backbone.body.forward).parameters:
        return f"PEFT puts a prefix at the beginning of a cache, and {backbone.architecture.name} has none"
    if backbone.architecture.pooling != "last" or rotary is None:
        return "PEFT's prefix moves all tokens by its length, and the positions here are learned one by one"
    windows = bool(getattr(backbone.config, "sliding_window", None))
    windows = windows and getattr(backbone.config, "use_sliding_window", True)
    kinds = set(getattr(backbone.config, "layer_types", None) or ("sliding" if windows else "full_attention",))
    if kinds != {"full_attention"}:
        return "PEFT's prefix lies within the attention's window, which tokens move out of, and ours is always seen"
    if getattr(rotary, "rope_type", None) not in FIXED:
        return "PEFT's prefix lengthens the input, and the rotary positions here depend on its length"
    return None


@torch.no_grad()
def save_prefix(trained: Trained, folder: Path) -> None:
    """Writes the configuration, the keys and values of all layers, and the head.

    Raises:
        InputError: a value is not finite.
    """
    backbone, updates = trained.backbone, trained.attached.updates()
    places = {place.name: place for place in backbone.prefix_places()}
    blocks: list[Tensor] = []
    for update in updates:
        assert update.left is not None and update.right is not None
        blocks += [_turned(update.right, places[update.site].heads, _rotary(trained)), update.left.T]
    first = places[updates[0].site]
    tensors = {f"base_model.{name}": value.detach() for name, value in trained.attached.head.items()}
    tensors["prompt_embeddings"] = torch.cat(blocks, 1)
    finite(tensors, trained)
    config = {
        "peft_type": "PREFIX_TUNING",
        "auto_mapping": None,
        "inference_mode": True,
        "task_type": task_type(trained),
        "base_model_name_or_path": public_name(trained.recipe.model.id),
        "revision": trained.recipe.model.commit,
        "num_virtual_tokens": len(blocks[0]),
        "num_layers": len(updates),
        "num_attention_heads": first.heads,
        "token_dim": first.width,
        "encoder_hidden_size": first.width,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "modules_to_save": head_modules(trained) or None,
    }
    write_json(folder / CONFIG, config)
    save_tensors(folder / WEIGHTS, tensors)


def _rotary(trained: Trained) -> nn.Module | None:
    found = getattr(trained.backbone.body, "rotary_emb", None)
    return found if isinstance(found, nn.Module) else None


def _turned(keys: Tensor, heads: int, rotary: Any) -> Tensor:
    """Keys (L, heads n) turned by L positions, head by head; halves of a head are pairs, as transformers has them."""
    length = torch.tensor([[len(keys)]], device=keys.device)
    cos, sin = (part[0] / rotary.attention_scaling for part in rotary(keys.unsqueeze(0), length))
    split = keys.unflatten(1, (heads, -1))
    low, high = split.chunk(2, dim=-1)
    return (split * cos + torch.cat((-high, low), -1) * sin).flatten(1)
