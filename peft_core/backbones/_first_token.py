"""The end of an encoder whose head reads the first token alone: no other token is computed there.

Behind the attention of the last layer a token depends on no other one, so what comes after it (its output map, the
feed-forward block, the norms) runs for the first token only, forward and backward: of a model with L layers about
3 / (4 L) of all products. Loss and gradients are the same. The last hidden state is then (rows, 1, hidden).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def first_token_from(module: nn.Module) -> RemovableHandle:
    """A module (and so what follows it) gets the first token of each of its inputs (rows, tokens, hidden)."""
    return module.register_forward_pre_hook(_first_token)


def _first_token(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value[:, :1].contiguous() for value in inputs)
