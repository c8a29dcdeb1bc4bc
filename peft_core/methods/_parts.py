"""What an attachment tells training beside its modules: its updates, its parameters' clocks, a second pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from peft_core.records import RankOf


@dataclass(frozen=True)
class WeightUpdate:
    """What a run added to one site's map: left (out, R) @ right (R, in), or delta (out, in) where there are no factors.

    kind `linear_map`: not an update of a weight but the linear part of an adapter, U V, or of a prefix, P_V P_K.
    kind `bias`: the update of the map's bias, as an (out, 1) matrix.
    """

    site: str
    layer: int
    role: str
    bound: int
    """Largest rank the method allows here."""
    left: Tensor | None = None
    right: Tensor | None = None
    delta: Tensor | None = None
    kind: RankOf = "delta"


@dataclass(frozen=True)
class Group:
    """How a parameter trains, where that differs from the rest of the run.

    rate: a peak rate of its own. decay: a weight decay of its own. born: the step at which its clock starts; warmup:
    steps from there over which its rate rises from 0, before it falls linearly to 0 at the run's end.
    """

    rate: float | None = None
    decay: float | None = None
    born: int | None = None
    warmup: int = 0


@dataclass
class SecondPass:
    """Another forward pass over every micro-batch, along another route, and what the two passes add to the loss.

    route: sends passes along the first (0) or second (1) route; `take` calls it. loss(first, second, classes): from
    the head outputs of both passes, (rows, outputs) or (rows,), the mean over rows; classes: whether they are scores of
    classes.
    """

    route: Callable[[int], None]
    loss: Callable[[Tensor, Tensor, bool], Tensor]
    taken: int = 0

    def take(self, route: int) -> None:
        """Sends the passes that follow along this route."""
        self.route(route)
        self.taken = route


StepHook = Callable[[int, torch.optim.Optimizer], None]
