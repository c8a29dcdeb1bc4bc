"""Unlabelled text for pre-training: grammatical sentences, and passages in which a second sentence retells the first.

It comes from the grammar of the tasks, and carries none of their answers: every passage is well-formed and coherent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._grammar import (
    TENSES,
    Event,
    chance,
    draw_entity,
    draw_event,
    event_words,
    noun_words,
    pick,
    relative_words,
    sentence,
    verb_words,
)
from peft_core.tasks.acceptability import clause
from peft_core.tasks.paraphrase import sequence
from peft_core.tasks.sentiment import review

Passage = tuple[str, str | None]


def told(rng: Random, event: Event) -> str:
    """The event in a random wording."""
    return sentence(event_words(rng, event, passive=chance(rng, 0.5), place_first=chance(rng, 0.3)))


def retold_event(rng: Random) -> Passage:
    event = draw_event(rng, adjective=0.5, negated=0.25, place=0.5)
    again = event
    if not event.negated and chance(rng, 0.2):
        again = replace(event, place=None)
    return told(rng, event), told(rng, again)


def retold_sequence(rng: Random) -> Passage:
    one = draw_entity(rng)
    first, second = (one, pick(rng, lexicon.SOLITARY)), (draw_entity(rng, one), pick(rng, lexicon.SOLITARY))
    return sequence(rng, first, second), sequence(rng, first, second)


def retold_relative(rng: Random) -> Passage:
    head = draw_entity(rng, adjective=0.2)
    inner_other = draw_entity(rng, head, adjective=0.2)
    outer_other = draw_entity(rng, head, inner_other, adjective=0.2)
    roles = (head, inner_other) if chance(rng, 0.5) else (inner_other, head)
    inner = Event(roles[0], pick(rng, lexicon.MUTUAL), roles[1], "past", chance(rng, 0.25))
    outer = Event(head, pick(rng, lexicon.MUTUAL), outer_other, pick(rng, TENSES), chance(rng, 0.25))
    words = noun_words(rng, head) + relative_words(rng, head, inner)
    words += verb_words(rng, outer.verb, outer.tense, head.plural, outer.negated) + noun_words(rng, outer_other)
    return sentence(words), told(rng, inner if chance(rng, 0.5) else outer)


def quantified(rng: Random) -> Passage:
    group = replace(draw_entity(rng, adjective=0.5), plural=True)
    verb, tense = pick(rng, lexicon.SOLITARY), pick(rng, TENSES[:3])
    quantifier = pick(rng, ("all", "some", "no", "many", "few", "not all"))
    texts = []
    for _ in range(2):
        phrase = quantifier.split() + [word.right for word in noun_words(rng, group)[1:]]
        texts.append(
            " ".join([*phrase, *(word.right for word in verb_words(rng, verb, tense, True))]).capitalize() + "."
        )
    return texts[0], texts[1] if chance(rng, 0.5) else None


def handling(rng: Random) -> Passage:
    """Someone does something with a thing, told in both voices."""
    who = draw_entity(rng)
    thing = replace(who, concept=pick(rng, lexicon.THINGS), plural=chance(rng, 0.5))
    thing = replace(thing, adjective=pick(rng, lexicon.THING_ADJECTIVES) if chance(rng, 0.5) else None)
    event = replace(draw_event(rng, negated=0.25), agent=who, patient=thing, verb=pick(rng, lexicon.HANDLING))
    return told(rng, event), told(rng, event) if chance(rng, 0.5) else None


SOURCES = (
    (24, lambda rng: (sentence(clause(rng)), None)),
    (20, lambda rng: (review(rng, chance(rng, 0.5), contrast=0.4), None)),
    (30, retold_event),
    (6, retold_sequence),
    (10, retold_relative),
    (5, quantified),
    (5, handling),
)
_WEIGHTED = tuple(source for weight, source in SOURCES for _ in range(weight))


def passages(seed: int, part: str = "pre-training") -> Iterator[Passage]:
    """Endless passages; the same seed and part give the same ones."""
    rng = Random(f"corpus:{part}:{seed}")
    while True:
        yield pick(rng, _WEIGHTED)(rng)
