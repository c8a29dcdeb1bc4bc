"""How close are two claims, from 0 to 5?

Three points for how many do it, less one for every place between the two on the scale none, not all, some, all; two
for the same time. Wordings that look alike can mean opposite ends of the scale, so words in common say little.
"""

from __future__ import annotations

from random import Random

import numpy as np

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._claims import Claim, some_adjective, worded
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import TENSES, chance, other, pick
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

SCALE: tuple[Claim, ...] = ("none", "not all", "some", "all")
TIMES = TENSES[:2]


def draft(rng: Random) -> Draft:
    group, deed = pick(rng, lexicon.ANIMATE), pick(rng, lexicon.SOLITARY)
    adjective, tense = some_adjective(rng, lexicon.ADJECTIVES, 0.3), pick(rng, TIMES)
    distance = int(rng.random() * len(SCALE))
    start = int(rng.random() * (len(SCALE) - distance))
    first, second = (SCALE[start], SCALE[start + distance])[:: 1 if chance(rng, 0.5) else -1]
    same_time = chance(rng, 0.5)
    then = tense if same_time else other(rng, TIMES, tense)
    score = float(len(SCALE) - 1 - distance + 2 * same_time)
    key = f"{group[0].singular} {deed[0].base} {adjective} {tense} {then}"

    def make() -> list[tuple[str, str, float]]:
        one = two = worded(rng, first, group, deed, tense, adjective)
        while two == one:
            two = worded(rng, second, group, deed, then, adjective)
        return [(one, two, score)]

    return key, make


STREAM = TextStream("similarity", ("text", "text2"), draft, np.float32)

TASK = StreamTask(
    TaskInfo(
        id="similarity",
        title="Similarity",
        description="How close are two claims, from 0 to 5? How many do it, on the scale none, not all, some, all, "
        "said in many ways; and when.",
        kind="pair_regression",
        modality="text",
        metrics=("pearson", "spearman"),
        labels=None,
        outputs=1,
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
