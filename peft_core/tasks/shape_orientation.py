"""Which way does the arrow point? Eight directions; smaller shapes around it point anywhere."""

from __future__ import annotations

from random import Random

from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._drawing import SIZE, Drawing, Kind, Shape, apart, contrasting, random_colour
from peft_core.tasks._grammar import pick
from peft_core.tasks._image_stream import DrawingStream
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, StreamTask

DIRECTIONS = ("east", "north-east", "north", "north-west", "west", "south-west", "south", "south-east")
DISTRACTORS: tuple[Kind, ...] = ("ellipse", "box")
STEP = 360 / len(DIRECTIONS)


def draft(rng: Random) -> tuple[Drawing, int]:
    ground = random_colour(rng)
    label = int(rng.random() * len(DIRECTIONS))
    angle = label * STEP + STEP * 0.5 * (rng.random() - 0.5)
    radius = 8.0 + 4.0 * rng.random()
    x, y = (radius + (SIZE - 2 * radius) * rng.random() for _ in range(2))
    arrow = Shape("arrow", x, y, radius, angle, 0.7, contrasting(rng, ground, 250))
    shapes = [arrow]
    for _ in range(2):
        small = 1.5 + 1.5 * rng.random()
        at_x, at_y = (small + (SIZE - 2 * small) * rng.random() for _ in range(2))
        if apart(shapes, at_x, at_y, small, gap=0):
            shapes.append(
                Shape(pick(rng, DISTRACTORS), at_x, at_y, small, 360 * rng.random(), 0.5, contrasting(rng, ground))
            )
    return Drawing(tuple(shapes), ground, 8.0, rng.getrandbits(32)), label


STREAM = DrawingStream("shape_orientation", draft)

TASK = StreamTask(
    TaskInfo(
        id="shape_orientation",
        title="Shape orientation",
        description="Which of eight ways does the arrow point? Its place, size and colour vary, small shapes distract.",
        kind="image_classification",
        modality="image",
        metrics=("accuracy",),
        labels=DIRECTIONS,
        outputs=len(DIRECTIONS),
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
