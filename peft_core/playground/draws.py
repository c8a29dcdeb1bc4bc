"""The theorem over many draws, and the rank for every number of branches: what takes longer than a slider waits."""

from __future__ import annotations

import time
from typing import Any

from peft_core.metrics.rank import rank_of_factors
from peft_core.playground.pair import draw_pair
from peft_core.playground.picture import why
from peft_core.playground.sketch import MOST_BRANCHES, Sketch

MOST_DRAWS = 200


def drawn(sketch: Sketch, draws: int = MOST_DRAWS, seconds: float = 2.0) -> dict[str, Any]:
    """How often a draw has the rank d r, and the rank of draw 0 for d = 1 to 8.

    Draws until there are as many, or the time is over; always one.

    Returns: share_equal (of draws of rank d r), share_bound (of those that reach the bound), mean, least and largest
    rank, draws, why; branches: one entry a number d, with rank and bound.
    """
    branches = [_branch(sketch.model_copy(update={"d": d})) for d in range(1, MOST_BRANCHES + 1)]
    end, ranks, empty = time.perf_counter() + seconds, list[int](), 0
    while len(ranks) < max(draws, 1) and (not ranks or time.perf_counter() < end):
        pair = draw_pair(sketch, len(ranks))
        ranks.append(rank_of_factors(pair.left, pair.right).numerical)
        empty += pair.empty()
    target, count = sketch.d * sketch.rank, len(ranks)
    return {
        "target": target,
        "bound": sketch.bound,
        "draws": count,
        "share_equal": sum(rank == target for rank in ranks) / count,
        "share_bound": sum(rank == sketch.bound for rank in ranks) / count,
        "mean_rank": sum(ranks) / count,
        "least_rank": min(ranks),
        "largest_rank": max(ranks),
        "why": why(sketch, min(ranks), empty / count),
        "branches": branches,
    }


def _branch(sketch: Sketch) -> dict[str, int]:
    pair = draw_pair(sketch)
    rank = rank_of_factors(pair.left, pair.right).numerical
    return {"d": sketch.d, "rank": rank, "bound": sketch.bound, "target": sketch.d * sketch.rank}
