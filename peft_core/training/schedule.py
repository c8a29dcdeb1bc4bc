"""Which task and which rows make up the batch of a step: the same for every run of a comparison."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from random import Random

import torch

BUCKET_BATCHES = 50
"""Batches whose rows are sorted by length together."""


class BatchOrder:
    """Which rows make up the batch of a step: a function of (data seed, step), the same for every run.

    Rows are permuted each epoch, sorted by length within buckets of 50 batches so that little is padded, cut into
    batches, and the batches permuted. The last batch of an epoch may be smaller.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size, self._seed = batch_size, seed
        self.batches_per_epoch = -(-len(lengths) // batch_size)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def rows(self, step: int) -> list[int]:
        """Row numbers of the batch of a step, counted from 0."""
        epoch, index = divmod(step, self.batches_per_epoch)
        return self._epoch(epoch)[index]

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self._lengths), generator=generator)
        batches: list[list[int]] = []
        for bucket in order.split(self._batch_size * BUCKET_BATCHES):
            by_length = bucket[self._lengths[bucket].argsort(stable=True)]
            batches += [part.tolist() for part in by_length.split(self._batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def task_shares(rows: Sequence[int], temperature: float) -> list[float]:
    """Probabilities of the tasks: rows^(1 / T), normalised (ProPETL, section 3.4, with T = 10)."""
    sizes = [count ** (1 / temperature) for count in rows]
    return [size / sum(sizes) for size in sizes]


class Schedule:
    """One task per batch, drawn by temperature, and the batches of a task in its own order.

    Args:
        lengths: tokens of every training row, task by task.
        batch_size: rows of a batch.
        seed: the data seed.
        temperature: T of `task_shares`; 1 draws in proportion to the rows.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], batch_size: int, seed: int, temperature: float) -> None:
        self.orders = [BatchOrder(rows, batch_size, seed) for rows in lengths]
        self._edges = list(accumulate(task_shares([len(rows) for rows in lengths], temperature)))
        self._seed = seed
        self._drawn: list[tuple[int, int]] = []
        self._taken = [0] * len(lengths)

    def batch(self, step: int) -> tuple[int, list[int]]:
        """Index of the task of a step, and row numbers among that task's."""
        if len(self.orders) == 1:
            return 0, self.orders[0].rows(step)
        while len(self._drawn) <= step:
            chance = Random(f"task:{self._seed}:{len(self._drawn)}").random()
            task = min(bisect(self._edges, chance), len(self.orders) - 1)
            self._drawn.append((task, self._taken[task]))
            self._taken[task] += 1
        task, batch = self._drawn[step]
        return task, self.orders[task].rows(batch)
