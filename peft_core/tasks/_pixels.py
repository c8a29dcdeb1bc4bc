"""Bytes of an image file to pixels, within limits: formats, size of the file, size of the picture."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 40_000_000
LARGEST_SIDE = 224
SMALLEST_SIDE = 8


class BadImage(Exception):
    """Why the bytes give no image."""


def _opened(data: bytes) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage("it is no image of a known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"it cannot be read ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"it has {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
    return image


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height, from the file's header."""
    image = _opened(data)
    return image.width, image.height


def pixels(data: bytes, side: int) -> np.ndarray:
    """uint8 (side, side, 3): the shorter side resized to `side` (bicubic), the middle of the longer one kept.

    A picture that its file says was taken sideways is turned upright.

    Raises:
        BadImage: the bytes are no image, a broken one, or too large.
    """
    from PIL import Image, ImageOps

    image = _opened(data)
    try:
        image.draft("RGB", (side, side))
        image = ImageOps.exif_transpose(image)
        plain = image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadImage(f"it is broken ({error})") from None
    if plain.size == (side, side):
        return np.asarray(plain)
    return np.asarray(ImageOps.fit(plain, (side, side), method=Image.Resampling.BICUBIC))


def common_side(sizes: list[tuple[int, int]]) -> int:
    """The side that images are brought to: the median of their shorter sides, `SMALLEST_SIDE` to `LARGEST_SIDE`."""
    shorter = sorted(min(size) for size in sizes)
    return max(SMALLEST_SIDE, min(LARGEST_SIDE, shorter[len(shorter) // 2]))
