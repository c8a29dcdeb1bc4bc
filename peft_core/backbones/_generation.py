"""Greedy answers: transformers' own generation loop, with its cache, and nothing of it but the most probable token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from peft_core.backbones._catalog import position_limit
from peft_core.records import InputError

if TYPE_CHECKING:
    from peft_core.backbones._backbone import TransformerBackbone


def greedy(backbone: TransformerBackbone, batch: Mapping[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
    """Answers as `Backbone.generate` describes them."""
    from transformers import GenerationConfig

    ids, mask = aligned(batch["input_ids"], real_tokens(backbone, batch), left=not backbone.encoder_decoder)
    prompt = 1 if backbone.encoder_decoder else ids.shape[1]
    _check_room(backbone, prompt, max_new_tokens)
    ends, padding = backbone.end_tokens, backbone.config.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=list(ends) or None,
        pad_token_id=padding if padding is not None else (ends or (0,))[0],
        decoder_start_token_id=backbone.decoder_start_token if backbone.encoder_decoder else None,
    )
    with _nothing_else(backbone.model):
        written = backbone.model.generate(ids, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
    return [_before_end(row, ends) for row in written[:, prompt:].tolist()]


def real_tokens(backbone: TransformerBackbone, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """bool (rows, tokens): tokens that are not padding; without a mask, those of another id than padding's."""
    mask = batch.get("attention_mask")
    return mask.bool() if mask is not None else batch["input_ids"] != backbone.config.pad_token_id


def aligned(ids: torch.Tensor, real: torch.Tensor, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The same rows with all padding on one side, cut to the longest row.

    Args:
        ids: (rows, tokens). real: bool (rows, tokens). left: whether the padding goes to the left.

    Returns:
        ids and attention mask, (rows, longest).
    """
    order = real.long().argsort(dim=1, stable=True, descending=not left)
    longest = max(int(real.sum(1).max()), 1)
    order = order[:, -longest:] if left else order[:, :longest]
    return ids.gather(1, order), real.gather(1, order).long()


def _check_room(backbone: TransformerBackbone, prompt: int, max_new_tokens: int) -> None:
    positions = position_limit(backbone.architecture, backbone.config.to_dict())
    if positions is not None and prompt + max_new_tokens > positions:
        allowed = f"{backbone.id} has {positions} positions, of which the longest prompt takes {prompt}"
        raise InputError("max_new_tokens", max_new_tokens, allowed)


@contextmanager
def _nothing_else(model: Any) -> Iterator[None]:
    """Within it the model's own generation settings (sampling, penalties, forced tokens) are out of the way."""
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _before_end(row: list[int], ends: tuple[int, ...]) -> list[int]:
    stop = next((at for at, token in enumerate(row) if token in ends), len(row))
    return row[:stop]
