"""Which digit was written? The real handwritten digits that come with scikit-learn (1,797 images of 8 x 8 pixels)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from peft_core.tasks._contract import Rows, Split, TaskInfo
from peft_core.tasks._stream import check_count, check_options

TRAIN_ROWS, EVAL_ROWS = 1347, 450
SCALE = 4


@lru_cache(maxsize=2)
def _split_indices(seed: int) -> dict[Split, np.ndarray]:
    """Row numbers of both splits, with the classes in equal shares, in an order fixed by the seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    numbers = np.arange(len(labels))
    state = seed % 2**32
    train, held_out = train_test_split(numbers, test_size=EVAL_ROWS, random_state=state, stratify=labels)
    return {"train": train, "eval": held_out}


def enlarged(images: np.ndarray) -> np.ndarray:
    """(rows, 8, 8) of 0..16 to uint8 (rows, 32, 32, 3): white ink on black, smooth edges."""
    from PIL import Image

    side = images.shape[-1] * SCALE
    grey = [
        np.asarray(Image.fromarray((image * 15.9).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC))
        for image in images
    ]
    return np.repeat(np.stack(grey)[..., None], 3, axis=-1)


class Digits:
    info = TaskInfo(
        id="digits",
        title="Handwritten digits",
        description="Which digit was written? Real scans of handwriting, 8 by 8 pixels, enlarged.",
        kind="image_classification",
        modality="image",
        metrics=("accuracy",),
        labels=tuple(str(digit) for digit in range(10)),
        outputs=10,
        train_rows=TRAIN_ROWS,
        eval_rows=EVAL_ROWS,
        max_train_rows=TRAIN_ROWS,
        max_eval_rows=EVAL_ROWS,
        origin="scikit-learn (UCI optical recognition of handwritten digits)",
        license="CC BY 4.0",
        protocol="stratified split fixed by the data seed; the score is that of the last step",
    )
    teacher = None
    scan = 8
    """Side of the scans that the images are enlarged from; a drawing is brought to it first."""

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(options, self.info.options)

    def rows(self, split: Split, count: int, seed: int, options: Mapping[str, Any]) -> Rows:
        from sklearn.datasets import load_digits

        self.check(options)
        check_count(f"{split}_rows", count, self.info.max_train_rows if split == "train" else self.info.max_eval_rows)
        chosen = _split_indices(seed)[split][:count]
        data = load_digits()
        return Rows({"image": enlarged(data.images[chosen])}, data.target[chosen].astype(np.int64))


TASK = Digits()
