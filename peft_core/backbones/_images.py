"""Images to model inputs through transformers' own processor (its Pillow form: torchvision is not required)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

CHUNK = 512


class ImageProcessor:
    """A transformers image processor that takes whole splits.

    Args:
        processor: what AutoImageProcessor loaded; it resizes, rescales and normalises.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (rows, height, width, 3) to float32 (rows, 3, size, size)."""
        chunks = [list(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        encoded = [
            self.processor(chunk, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
            for chunk in chunks
        ]
        return torch.cat(encoded)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json."""
        self.processor.save_pretrained(folder)
