"""Which rows are training and which evaluation, and in what order.

Both follow a 64-bit key, hash(seed, purpose, text of the row): the first rows are the same however many are asked for,
a table that is sorted by label gives mixed rows, and rows with the same text fall on the same side.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

EVAL_SHARE = 0.2


def keys(seed: int, purpose: str, contents: np.ndarray) -> np.ndarray:
    """uint64 (rows,): SplitMix64 of the rows' content hashes, from a start that the seed and the purpose give."""
    digest = blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        mixed = contents ^ np.uint64(int.from_bytes(digest, "little"))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            mixed ^= mixed >> np.uint64(shift)
            mixed *= np.uint64(factor)
    return mixed


def shuffled(rows: np.ndarray, contents: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Row numbers in the order of their keys; contents: uint64 hashes of all rows of the source."""
    return rows[np.argsort(keys(seed, purpose, contents[rows]), kind="stable")]


def held_out(
    rows: np.ndarray, contents: np.ndarray, classes: np.ndarray | None, seed: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Training and evaluation row numbers, each ascending.

    Args:
        rows: int64 numbers of the rows that may be used.
        contents: uint64 content hashes of all rows of the source.
        classes: class of each row of the source: every class gives round(share x its rows), at least one where it has
            two. None: the same share of all rows. Rows of one class with the same content stay together.
    """
    order = shuffled(rows, contents, seed, "split")
    groups = [order]
    if classes is not None:
        of_row = classes[order]
        sizes = np.unique(of_row, return_counts=True)[1]
        groups = np.split(order[np.argsort(of_row, kind="stable")], np.cumsum(sizes)[:-1])
    chosen = np.zeros(len(contents), dtype=bool)
    for group in groups:
        chosen[group[: _cut(contents[group], share)]] = True
    return rows[~chosen[rows]], rows[chosen[rows]]


def _cut(contents: np.ndarray, share: float) -> int:
    """How many rows of a group are held out; never all, and not through rows with the same content."""
    if len(contents) < 2:
        return 0
    wanted = min(len(contents) - 1, max(1, round(share * len(contents))))
    end = wanted
    while end < len(contents) and contents[end] == contents[end - 1]:
        end += 1
    if end < len(contents):
        return end
    start = wanted
    while start > 0 and contents[start] == contents[start - 1]:
        start -= 1
    return start


def permutation(count: int, seed: int = 42) -> np.ndarray:
    """The permutation that the released ProPETL code draws: ``torch.randperm`` under a generator of that seed."""
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()


def said_of_defaults(train: tuple[int, int], held: tuple[int, int]) -> str:
    """Which rows are left out where nobody asks for more, from the (rows there are, rows taken) of either side."""
    cut = [
        f"{taken:,} of {there:,} {purpose} rows"
        for (there, taken), purpose in ((train, "training"), (held, "evaluation"))
        if there > taken
    ]
    return f"unless more are asked for, {' and '.join(cut)}, drawn by data_seed" if cut else ""
