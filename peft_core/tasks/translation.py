"""From English into the second language of `_second_language`.

The words of either side are synonyms or one root; order, case, agreement and what the passive does are all different.
A row's key is who, how many and what is done, without roles, tense, place and voice: no evaluation row tells an event
of the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from peft_core.tasks import _second_language as second
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import (
    TENSES,
    Entity,
    Event,
    chance,
    event_key,
    event_words,
    finish,
    noun_words,
    other,
    pick,
    place_words,
    relative_words,
    verb_words,
)
from peft_core.tasks._lexicon import PREPOSITIONS
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream


@dataclass(frozen=True)
class Telling:
    """What a sentence says, and in which voice. inner: an event of the outer event's agent, in a relative clause."""

    event: Event
    passive: bool = False
    inner: Event | None = None


def draw_being(rng: Random, *apart_from: Entity, adjective: float = 0.35) -> Entity:
    concept = other(rng, second.ANIMATE, *(entity.concept for entity in apart_from))
    chosen = pick(rng, second.ADJECTIVES) if chance(rng, adjective) else None
    return Entity(concept, chance(rng, 0.5), chosen)


def draw_thing(rng: Random) -> Entity:
    chosen = pick(rng, second.THING_ADJECTIVES) if chance(rng, 0.35) else None
    return Entity(pick(rng, second.THINGS), chance(rng, 0.5), chosen)


def draw_telling(rng: Random) -> Telling:
    agent = draw_being(rng)
    handled = chance(rng, 0.3)
    verb, patient = (
        (pick(rng, second.HANDLING), draw_thing(rng)) if handled else (pick(rng, second.MUTUAL), draw_being(rng, agent))
    )
    place = (pick(rng, PREPOSITIONS), pick(rng, second.PLACES)) if chance(rng, 0.4) else None
    event = Event(agent, verb, patient, pick(rng, TENSES), chance(rng, 0.25), place)
    if chance(rng, 0.25):
        third = draw_being(rng, agent, patient, adjective=0.2)
        roles = (agent, third) if chance(rng, 0.5) else (third, agent)
        inner = Event(roles[0], pick(rng, second.MUTUAL), roles[1], pick(rng, ("past", "present")))
        return Telling(replace(event, place=None), inner=inner)
    return Telling(event, passive=chance(rng, 0.4))


def english(rng: Random, telling: Telling) -> str:
    """The telling in English, with any of the synonyms, the place in front or at the end."""
    event = telling.event
    if telling.inner is None:
        words = event_words(rng, event, telling.passive, place_first=chance(rng, 0.4))
    else:
        words = noun_words(rng, event.agent) + relative_words(rng, event.agent, telling.inner)
        words += verb_words(rng, event.verb, event.tense, event.agent.plural, event.negated)
        words += noun_words(rng, event.patient)
        words += place_words(rng, event.place) if event.place else []
    return finish([word.right for word in words])


def translated(telling: Telling) -> str:
    return second.clause(telling.event, telling.passive, telling.inner)


def draft(rng: Random) -> Draft:
    telling = draw_telling(rng)
    key = event_key(telling.event, event_key(telling.inner) if telling.inner else "")
    return key, lambda: [(english(rng, telling), (translated(telling),))]


STREAM = TextStream("translation", ("text", "target"), draft, dtype=None)

TASK = StreamTask(
    TaskInfo(
        id="translation",
        title="Translation",
        description="From English into a small second language with its own words, order, case and agreement.",
        kind="generation",
        modality="text",
        metrics=("bleu", "rouge_l"),
        labels=None,
        outputs=0,
        train_rows=8000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
