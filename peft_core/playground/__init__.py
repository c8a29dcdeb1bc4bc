"""The rank playground: one masked low-rank pair looked at without training, and how much of a target pairs can hold."""

from peft_core.playground.curves import Curves, fit
from peft_core.playground.draws import drawn
from peft_core.playground.fitting import FitPair, FitSpec, ranks_at_equal_parameters
from peft_core.playground.pair import Pair, draw_pair
from peft_core.playground.picture import sketched
from peft_core.playground.sketch import Sketch, clamped
from peft_core.playground.targets import Target, made_target, target_of_update

__all__ = [
    "Curves",
    "FitPair",
    "FitSpec",
    "Pair",
    "Sketch",
    "Target",
    "clamped",
    "draw_pair",
    "drawn",
    "fit",
    "made_target",
    "ranks_at_equal_parameters",
    "sketched",
    "target_of_update",
]
