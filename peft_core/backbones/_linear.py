"""Linear maps among a model's modules."""

from __future__ import annotations

import torch
from torch import nn


def is_linear(module: nn.Module) -> bool:
    """True for nn.Linear and for transformers' Conv1D, which is a linear map with its weight as (in, out)."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def linear_shape(module: nn.Module) -> tuple[int, int, bool]:
    """(in features, out features, transposed) of a linear map."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    rows, columns = weight.shape
    return (rows, columns, True) if type(module).__name__ == "Conv1D" else (columns, rows, False)
