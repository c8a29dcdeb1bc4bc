"""Is the review positive? The clause that wins decides, and negation turns a clause round.

In a contrast the two clauses disagree: ``A but B`` and ``although A, B`` go with B. The words of both polarities are
equally frequent in both classes; only their places tell.
"""

from __future__ import annotations

from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import Words, be_words, chance, finish, pick, plain, verb_words
from peft_core.tasks._lexicon import Noun
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

PEOPLE_SUBJECTS = (("i", True), ("we", True), ("my friend", False), ("the critics", True), ("everyone", False))
CONTRASTS = (
    ("{lost} but {won}", 3),
    ("{lost} , yet {won}", 2),
    ("although {lost} , {won}", 2),
    ("{won} although {lost}", 2),
    ("{won} , even though {lost}", 2),
    ("despite the claim that {lost} , {won}", 1),
    ("people say that {lost} but {won}", 1),
)
_WEIGHTED = tuple(frame for frame, weight in CONTRASTS for _ in range(weight))


def clause_words(rng: Random, aspect: Noun, positive: bool) -> Words:
    """A clause that values the aspect: a third of them by denying the opposite."""
    negated = chance(rng, 0.35)
    seems_good = positive != negated
    plural = chance(rng, 0.3)
    name = plain(f"the {aspect.plural if plural else aspect.singular}")
    shape = rng.random()
    if shape < 0.55:
        quality = plain(pick(rng, pick(rng, lexicon.GOOD if seems_good else lexicon.BAD)))
        return name + be_words("past", plural, negated) + quality
    if shape < 0.75:
        subject = plain("nobody" if negated else pick(rng, ("everyone", "my friend", "the critics")))
        quality = plain(pick(rng, pick(rng, lexicon.GOOD if seems_good else lexicon.BAD)))
        return subject + plain("found") + name + quality
    verb = pick(rng, lexicon.LIKING if seems_good else lexicon.DISLIKING)
    who, many = pick(rng, PEOPLE_SUBJECTS[:4])
    return plain(who) + verb_words(rng, verb, pick(rng, ("past", "present")), many, negated) + name


def review(rng: Random, positive: bool, contrast: float = 0.45) -> str:
    """One clause, two that agree, or (with the probability `contrast`) two that disagree."""
    won_aspect, lost_aspect = (pick(rng, concept) for concept in rng.sample(lexicon.ASPECTS, 2))
    contrasted = chance(rng, contrast)

    def clause(aspect: Noun, good: bool) -> str:
        return " ".join(word.right for word in clause_words(rng, aspect, good))

    if contrasted:
        text = pick(rng, _WEIGHTED).format(won=clause(won_aspect, positive), lost=clause(lost_aspect, not positive))
    elif chance(rng, 0.4):
        text = clause(won_aspect, positive)
    else:
        text = f"{clause(won_aspect, positive)} and {clause(lost_aspect, positive)}"
    return finish(["I" if word == "i" else word for word in text.split()])


def draft(rng: Random) -> Draft:
    positive = chance(rng, 0.5)
    text = review(rng, positive)
    return text, lambda: [(text, int(positive))]


STREAM = TextStream("sentiment", ("text",), draft)

TASK = StreamTask(
    TaskInfo(
        id="sentiment",
        title="Sentiment",
        description="Is the review positive? Negation turns a clause round, and in a contrast one clause wins over the "
        "other.",
        kind="classification",
        modality="text",
        metrics=("accuracy",),
        labels=("negative", "positive"),
        outputs=2,
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
