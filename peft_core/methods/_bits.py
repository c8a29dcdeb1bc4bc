"""Binary values, eight to a byte."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """bool (n,) to uint8 (ceil(n / 8),), the first value in the lowest bit."""
    padded = torch.cat([values.cpu(), torch.zeros(-len(values) % 8, dtype=torch.bool)]).view(-1, 8)
    return (padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """bool (count,): what `pack_bits` packed."""
    return (packed.cpu().unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1).flatten()[:count].bool()
