"""``bench --what rank``: the rank of an update from its factors beside an SVD of it."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from peft_core.commands._bench import bench_backbone, bench_batch, interleaved, step_of
from peft_core.methods import get_method, method_of_part, resolve
from peft_core.metrics.rank import ranks_of_factors
from peft_core.records import MethodSpec, TrainingConfig
from peft_core.training.environment import environment
from peft_core.training.evaluate import layer_ranks

UPDATES = 8
"""Updates of one shape whose ranks are taken together: two maps in each of four layers, as in the model measured."""
COLUMNS = ("label", "ms_median", "ratio", "what")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """How much faster than an SVD the rank of an update is from its factors, and its share of the training time.

    The SVD is of one update formed before, in float64, and of its singular values alone: the fastest way to the same
    spectrum. From factors it is the time of `UPDATES` updates of one shape, decomposed together as in training, over
    their number. The share is that of one measurement of all layers in the steps between two of them by default.
    """
    size, branches = 768, 2
    generator = torch.Generator().manual_seed(0)
    inner = branches * options.rank
    pairs = [
        (torch.randn((size, inner), generator=generator), torch.randn((inner, size), generator=generator))
        for _ in range(UPDATES)
    ]
    update = pairs[0][0].double() @ pairs[0][1].double()
    backbone = bench_backbone(options)
    spec = MethodSpec.parse(
        f"{method_of_part('yardstick').id}:rank={options.rank},boost.d={branches},boost.sparsity=0.5"
    )
    attached = get_method(spec.id).attach(backbone, resolve(spec), torch.Generator().manual_seed(0))
    train = step_of(attached, *bench_batch(backbone, options.rows, options.tokens))

    def step() -> None:
        attached.train()
        train()

    labels = ("SVD of the update", "from its factors", "training step", "ranks of all layers")
    works: tuple[Callable[[], Any], ...] = (
        lambda: torch.linalg.svdvals(update),
        lambda: ranks_of_factors(pairs),
        step,
        lambda: layer_ranks(attached),
    )
    times = interleaved(dict(zip(labels, works, strict=True)), options.repeats)
    times["from its factors"] = [seconds / UPDATES for seconds in times["from its factors"]]
    config = TrainingConfig()
    between = config.eval_interval(config.total_steps(0)) * config.rank_every
    svd, factors, steps, ranks = (times[label] for label in labels)
    faster = statistics.median(a / b for a, b in zip(svd, factors, strict=True))
    share = statistics.median(b / (between * a) for a, b in zip(steps, ranks, strict=True))
    said = (
        f"of {size} x {size}",
        f"SVD / factors, d r = {inner}",
        f"{between} between two measurements",
        "ranks / steps between",
    )
    rows = [
        {"label": label, "ms_median": 1000 * statistics.median(times[label]), "ratio": ratio, "what": what}
        for label, ratio, what in zip(labels, (None, faster, None, share), said, strict=True)
    ]
    return {
        "what": "rank of an update from its factors; ratios are medians of pairs measured in turns",
        "model": backbone.id,
        "method": str(spec),
        "shape": [size, size],
        "total_rank": inner,
        "updates_together": UPDATES,
        "rows_of_a_batch": options.rows,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "steps_between": between,
        "svd_over_factors": faster,
        "share_of_training": share,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }
