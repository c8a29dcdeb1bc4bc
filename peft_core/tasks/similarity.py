"""How much do two sentences share? From 0 to 5: the number of slots of the event that mean the same.

The slots: who, with what property, does what, to whom, where. Voice and synonyms change the words but not the score; a
word that moves to another role (the doer becomes the one it is done to) stays but no longer counts. Each sentence keeps
to one of two registers, so that words in common say little about meaning in common.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import (
    TENSES,
    Entity,
    Event,
    chance,
    event_key,
    event_words,
    other,
    pick,
    sentence,
)
from peft_core.tasks._lexicon import PREPOSITIONS
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

SLOTS = ("agent", "property", "verb", "patient", "place")
ANIMATE = tuple(concept for concept in lexicon.ANIMATE if len(concept) > 1)
VERBS = tuple(concept for concept in lexicon.MUTUAL if len(concept) > 1)
PROPERTIES = tuple(concept for concept in lexicon.ADJECTIVES if len(concept) > 1)
PLACES = tuple(concept for concept in lexicon.PLACES if len(concept) > 1)
TRADED = 0.75
"""How often words that lose their slot trade places instead of giving way to others."""


def altered(rng: Random, event: Event, lost: tuple[str, ...]) -> Event:
    """The event with other fillers in the slots that are lost. The patient's property is no slot."""
    agent, patient = event.agent, event.patient
    doer, target = agent.concept, patient.concept
    if "agent" in lost and "patient" in lost and chance(rng, TRADED):
        doer, target = target, doer
    else:
        doer = other(rng, ANIMATE, doer, target) if "agent" in lost else doer
        target = other(rng, ANIMATE, doer, target) if "patient" in lost else target
    property_, rest = agent.adjective, patient.adjective
    if "property" in lost and chance(rng, TRADED):
        property_, rest = rest, property_
    elif "property" in lost:
        property_, rest = rng.sample([each for each in PROPERTIES if each not in (property_, rest)], 2)
    elif chance(rng, 0.5):
        rest = other(rng, PROPERTIES, property_, rest)
    where = event.place
    if where and "place" in lost:
        where = (where[0], other(rng, PLACES, where[1]))
    return replace(
        event,
        agent=replace(agent, concept=doer, adjective=property_),
        patient=replace(patient, concept=target, adjective=rest),
        verb=other(rng, VERBS, event.verb) if "verb" in lost else event.verb,
        place=where,
    )


def in_register(event: Event, formal: bool) -> Event:
    """The event with one word left of every pair of synonyms: the first, or the last."""
    nearer = slice(-1, None) if formal else slice(0, 1)

    def entity(who: Entity) -> Entity:
        return replace(who, concept=who.concept[nearer], adjective=who.adjective and who.adjective[nearer])

    where = event.place and (event.place[0], event.place[1][nearer])
    return replace(
        event, agent=entity(event.agent), patient=entity(event.patient), verb=event.verb[nearer], place=where
    )


def draw(rng: Random) -> Event:
    """An event whose slots all have words with synonyms."""
    doer = pick(rng, ANIMATE)
    first, second = rng.sample(PROPERTIES, 2)
    agent = Entity(doer, chance(rng, 0.5), first)
    patient = Entity(other(rng, ANIMATE, doer), chance(rng, 0.5), second)
    where = pick(rng, PREPOSITIONS), pick(rng, PLACES)
    return Event(agent, pick(rng, VERBS), patient, pick(rng, TENSES), place=where)


def draft(rng: Random) -> Draft:
    event = draw(rng)
    shared = int(rng.random() * (len(SLOTS) + 1))
    lost = tuple(rng.sample(SLOTS, len(SLOTS) - shared))

    def told(what: Event) -> str:
        what = in_register(what, chance(rng, 0.5))
        return sentence(event_words(rng, what, passive=chance(rng, 0.5), place_first=chance(rng, 0.3)))

    return event_key(event, event.place), lambda: [(told(event), told(altered(rng, event, lost)), float(shared))]


STREAM = TextStream("similarity", ("text", "text2"), draft, np.float32)

TASK = StreamTask(
    TaskInfo(
        id="similarity",
        title="Similarity",
        description="How much do two sentences share, from 0 to 5? Counted over who, with what property, does what, to "
        "whom, where; synonyms count as equal, exchanged roles do not.",
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
