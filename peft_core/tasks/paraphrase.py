"""Do two sentences say the same? Either wording may be active or passive, with synonyms and a moved place.

The negatives use the same words: the roles are exchanged, the adjectives trade places, or two events change order.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import (
    Entity,
    Event,
    Word,
    Words,
    chance,
    draw_entity,
    draw_event,
    event_key,
    event_words,
    noun_words,
    other,
    pick,
    sentence,
    verb_words,
)
from peft_core.tasks._lexicon import VerbConcept
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

Deed = tuple[Entity, VerbConcept]


def with_traded_adjectives(event: Event) -> Event:
    agent, patient = event.agent, event.patient
    return replace(
        event, agent=replace(agent, adjective=patient.adjective), patient=replace(patient, adjective=agent.adjective)
    )


def told(rng: Random, event: Event) -> str:
    """The event in a random wording."""
    return sentence(event_words(rng, event, passive=chance(rng, 0.5), place_first=chance(rng, 0.4)))


def sequence(rng: Random, first: Deed, second: Deed) -> str:
    """Two deeds in their order in time: ``A before B`` or ``B after A``, the conjunction inside or in front."""

    def deed_words(deed: Deed) -> Words:
        return noun_words(rng, deed[0]) + verb_words(rng, deed[1], "past", deed[0].plural)

    before = chance(rng, 0.5)
    main, side = (first, second) if before else (second, first)
    linked = [Word("before" if before else "after"), *deed_words(side)]
    if chance(rng, 0.5):
        return sentence([*linked, Word(","), *deed_words(main)])
    return sentence(deed_words(main) + linked)


def draft(rng: Random) -> Draft:
    same = chance(rng, 0.5)
    event = draw_event(rng, adjective=0.5, negated=0.15)
    if chance(rng, 0.2):
        first: Deed = (event.agent, pick(rng, lexicon.SOLITARY))
        second: Deed = (draw_entity(rng, event.agent), other(rng, lexicon.SOLITARY, first[1]))
        told_again = (first, second) if same else (second, first)
        key = str(sorted((deed[0].concept[0].singular, deed[1][0].base) for deed in (first, second)))
        return key, lambda: [(sequence(rng, first, second), sequence(rng, *told_again), int(same))]
    changed = event
    if not same:
        apart = event.agent.adjective != event.patient.adjective
        changed = with_traded_adjectives(event) if apart and chance(rng, 0.35) else event.swapped()

    def make() -> list[tuple[str, str, int]]:
        first = second = told(rng, event)
        while second == first:
            second = told(rng, changed)
        return [(first, second, int(same))]

    return event_key(event), make


STREAM = TextStream("paraphrase", ("text", "text2"), draft)

TASK = StreamTask(
    TaskInfo(
        id="paraphrase",
        title="Paraphrase",
        description="Do two sentences say the same? Active and passive, synonyms, moved phrases; the negatives use the "
        "same words in other roles.",
        kind="pair_classification",
        modality="text",
        metrics=("accuracy", "f1"),
        labels=("different", "same"),
        outputs=2,
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
