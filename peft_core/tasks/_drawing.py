"""Small drawings: filled shapes and strokes on a plain noisy ground, 32 x 32 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SIZE = 32
_FINE = 2
"""Shapes are drawn this many times larger and averaged, so that edges are smooth."""

Kind = Literal["ellipse", "box", "triangle", "arrow", "stroke"]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """x, y: centre, in pixels. radius: half the length. aspect: width by length. angle: degrees, counter-clockwise
    from the right."""

    kind: Kind
    x: float
    y: float
    radius: float
    angle: float
    aspect: float
    colour: Colour


@dataclass(frozen=True)
class Drawing:
    shapes: tuple[Shape, ...]
    ground: Colour
    noise: float
    noise_seed: int

    def key(self) -> str:
        return repr((self.shapes, self.ground))

    def pixels(self) -> np.ndarray:
        """uint8 (SIZE, SIZE, 3)."""
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (SIZE * _FINE, SIZE * _FINE), self.ground)
        pen = ImageDraw.Draw(image)
        for shape in self.shapes:
            draw_shape(pen, shape)
        pixels = np.asarray(image.reduce(_FINE), dtype=np.float32)
        grain = np.random.Generator(np.random.PCG64(self.noise_seed)).standard_normal(pixels.shape, dtype=np.float32)
        return np.clip(pixels + self.noise * grain, 0, 255).astype(np.uint8)


def _outline(kind: Kind, aspect: float) -> list[tuple[float, float]]:
    """Corners of a shape that points to the right, of half length 1."""
    if kind == "ellipse":
        return [(math.cos(turn * math.pi / 8), aspect * math.sin(turn * math.pi / 8)) for turn in range(16)]
    if kind == "triangle":
        return [(1, 0), (-1, aspect), (-1, -aspect)]
    if kind == "arrow":
        thin = aspect * 0.35
        return [(1, 0), (0.1, aspect), (0.1, thin), (-1, thin), (-1, -thin), (0.1, -thin), (0.1, -aspect)]
    return [(1, aspect), (-1, aspect), (-1, -aspect), (1, -aspect)]


def draw_shape(pen: ImageDraw, shape: Shape) -> None:
    cos, sin = math.cos(math.radians(shape.angle)), math.sin(math.radians(shape.angle))
    scale = shape.radius * _FINE
    corners = [
        (shape.x * _FINE + scale * (x * cos - y * sin), shape.y * _FINE - scale * (x * sin + y * cos))
        for x, y in _outline(shape.kind, shape.aspect)
    ]
    pen.polygon(corners, fill=shape.colour)


def random_colour(rng: Random) -> Colour:
    return int(rng.random() * 256), int(rng.random() * 256), int(rng.random() * 256)


def contrasting(rng: Random, ground: Colour, least: int = 150) -> Colour:
    """A colour at a visible distance (sum over the channels) from the ground."""
    while True:
        colour = random_colour(rng)
        if sum(abs(one - two) for one, two in zip(colour, ground, strict=True)) >= least:
            return colour


def apart(shapes: list[Shape], x: float, y: float, radius: float, gap: float = 1.0) -> bool:
    return all(math.hypot(shape.x - x, shape.y - y) > shape.radius + radius + gap for shape in shapes)
