"""How many shapes are there? One to six shapes of several kinds, sizes and colours that do not touch."""

from __future__ import annotations

from random import Random

from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._drawing import SIZE, Drawing, Kind, Shape, apart, contrasting, random_colour
from peft_core.tasks._grammar import pick
from peft_core.tasks._image_stream import DrawingStream
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, StreamTask

KINDS: tuple[Kind, ...] = ("ellipse", "box", "triangle")
MOST = 6


def scattered(rng: Random, count: int) -> Drawing:
    """A drawing of `count` shapes that keep their distance."""
    ground = random_colour(rng)
    shapes: list[Shape] = []
    while len(shapes) < count:
        radius = 2.0 + 3.0 * rng.random()
        x, y = (radius + (SIZE - 2 * radius) * rng.random() for _ in range(2))
        if apart(shapes, x, y, radius):
            colour = contrasting(rng, ground)
            aspect = 0.5 + 0.2 * rng.random()
            shapes.append(Shape(pick(rng, KINDS), x, y, radius, 360 * rng.random(), aspect, colour))
    return Drawing(tuple(shapes), ground, 8.0, rng.getrandbits(32))


def draft(rng: Random) -> tuple[Drawing, int]:
    label = int(rng.random() * MOST)
    return scattered(rng, label + 1), label


STREAM = DrawingStream("shape_count", draft)

TASK = StreamTask(
    TaskInfo(
        id="shape_count",
        title="Shape count",
        description="How many shapes are drawn, one to six? Kinds, sizes and colours vary.",
        kind="image_classification",
        modality="image",
        metrics=("accuracy",),
        labels=tuple(str(number + 1) for number in range(MOST)),
        outputs=MOST,
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
