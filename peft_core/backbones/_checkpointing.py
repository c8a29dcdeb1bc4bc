"""Gradient checkpointing: a layer's activations are computed again for the backward pass, not kept (Chen et al. 2016).

transformers' own switch works in training mode only, where a backbone's dropout would be on; this one wraps the layers
of a frozen model in evaluation mode. What a method computes within a layer is computed again too, and must come out the
same: all that our modules draw is keyed by step, site and row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

Recompute = Callable[[], AbstractContextManager[None]]
"""Called in the forward pass; gives a context that brings its state back for the second computation."""


@contextmanager
def checkpointed(layers: Sequence[nn.Module], recompute: Recompute) -> Iterator[None]:
    """Within it these layers keep only their inputs. The backward pass belongs within it, too."""
    for layer in layers:
        layer.forward = partial(_checkpoint, layer.forward, recompute)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _checkpoint(forward: Callable[..., Any], recompute: Recompute, *inputs: Any, **options: Any) -> Any:
    again = recompute()
    return checkpoint(
        partial(forward, **options),
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), again),
    )
