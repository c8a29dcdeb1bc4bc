"""Endless streams of drawings, cut into splits by a hash of what is drawn, as `_stream` does for text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from peft_core.tasks._contract import Rows, Split
from peft_core.tasks._drawing import Drawing
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, check_count, split_of


@dataclass(frozen=True)
class DrawingStream:
    """Rows of drawings from a function that draws one and says its class."""

    name: str
    draft: Callable[[Random], tuple[Drawing, int]]

    def rows(self, split: Split, count: int, seed: int) -> Rows:
        check_count(f"{split}_rows", count, MAX_ROWS if split == "train" else MAX_EVAL_ROWS)
        rng = Random(f"{self.name}:{split}:{seed}")
        seen: set[str] = set()
        images: list[np.ndarray] = []
        labels: list[int] = []
        while len(labels) < count:
            drawing, label = self.draft(rng)
            key = drawing.key()
            if split_of(key) == split and key not in seen:
                seen.add(key)
                images.append(drawing.pixels())
                labels.append(label)
        return Rows({"image": np.stack(images)}, np.array(labels, dtype=np.int64))
