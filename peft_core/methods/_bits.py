"""Binary values, eight to a byte."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """bool (n,) to uint8 (ceil(n / 8),), the first value in the lowest bit."""
    padded = torch.cat([values.cpu(), torch.zeros(-len(values) % 8, dtype=torch.bool)]).view(-1, 8)
    return (padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """bool (count,): what `pack_bits` packed."""
    return (packed.cpu().unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[:count].bool()


def pack_rows(masks: Tensor) -> Tensor:
    """bool (..., cols) to uint8 (..., ceil(cols / 8)): eight columns to a byte, the first in the lowest bit."""
    count = -(-masks.shape[-1] // 8)
    padded = F.pad(masks, (0, 8 * count - masks.shape[-1])).reshape(*masks.shape[:-1], count, 8)
    return (padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8, device=masks.device)).sum(-1).to(torch.uint8)


def unpack_rows(packed: Tensor, cols: int, dtype: torch.dtype) -> Tensor:
    """(..., cols) of ones and zeros in `dtype`: what `pack_rows` packed."""
    values = _bytes(dtype, packed.device).index_select(0, packed.reshape(-1).int())
    values = values.view(*packed.shape[:-1], 8 * packed.shape[-1])
    return values if values.shape[-1] == cols else values[..., :cols]


@lru_cache
def _bytes(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(256, 8): the bits of every byte."""
    with torch.inference_mode(False):
        return (torch.arange(256).unsqueeze(1) >> torch.arange(8) & 1).to(device, dtype)
