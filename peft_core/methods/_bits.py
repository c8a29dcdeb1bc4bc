"""Binary values, eight to a byte."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """bool (n,) to uint8 (ceil(n / 8),), the first value in the lowest bit."""
    padded = torch.cat([values.cpu(), torch.zeros(-len(values) % 8, dtype=torch.bool)]).view(-1, 8)
    return (padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """bool (count,): what `pack_bits` packed."""
    return (packed.cpu().unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[:count].bool()


def pack_branches(masks: Tensor) -> Tensor:
    """bool (d, rows, cols) to uint8 (ceil(d / 8), rows, cols): a byte holds one value's bits in eight branches."""
    groups = masks.split(8)
    return torch.stack([(group * _places(masks.device)[: len(group)]).sum(0, dtype=torch.uint8) for group in groups])


def unpack_branches(packed: Tensor, branches: int) -> Tensor:
    """bool (..., d, rows, cols): what `pack_branches` packed, of as many tensors as packed has dimensions in front."""
    places = _places(packed.device)
    if branches <= 8:
        return (packed & places[:branches]).bool()
    return (packed.unsqueeze(-3) & places).flatten(-4, -3)[..., :branches, :, :].bool()


@lru_cache
def _places(device: torch.device) -> Tensor:
    """uint8 (8, 1, 1): the bit of each of eight branches."""
    with torch.inference_mode(False):
        return (1 << torch.arange(8)).to(torch.uint8).view(8, 1, 1).to(device)
