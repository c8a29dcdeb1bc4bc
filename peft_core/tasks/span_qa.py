"""Who did it, and to whom it was done: the answer is a span of a story of three events with six entities.

All events of a story have the same verb, so the verb tells nothing. One other event has the tense of the one that is
asked for, but is denied where that one is not; the other one is denied alike, but in another tense. In the right event
voice and role tell which of the two entities is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import (
    TENSES,
    Entity,
    Event,
    Word,
    chance,
    draw_entity,
    noun_words,
    other,
    pick,
    sentence,
    verb_words,
)
from peft_core.tasks._lexicon import VerbConcept
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream


@dataclass(frozen=True)
class Told:
    """A sentence, and where its two entities stand in it: (text, index of its first character)."""

    text: str
    agent: tuple[str, int]
    patient: tuple[str, int]


def tell(rng: Random, event: Event) -> Told:
    """The event in either voice."""
    passive = chance(rng, 0.5)
    subject, rest = (event.patient, event.agent) if passive else (event.agent, event.patient)
    first, last = noun_words(rng, subject), noun_words(rng, rest)
    verb = verb_words(rng, event.verb, event.tense, subject.plural, event.negated, passive)
    text = sentence([*first, *verb, *([Word("by")] if passive else []), *last])
    lengths = [len(" ".join(word.right for word in words)) for words in (first, last)]
    front, back = (text[: lengths[0]], 0), (text[-1 - lengths[1] : -1], len(text) - 1 - lengths[1])
    return Told(text, back, front) if passive else Told(text, front, back)


def ask(rng: Random, event: Event, of_agent: bool) -> str:
    """``Who will not chase anyone?`` or ``Who was chased?``"""
    words = [
        "Who",
        *(word.right for word in verb_words(rng, event.verb, event.tense, False, event.negated, not of_agent)),
    ]
    whom = ["anyone" if event.negated else "someone"] if of_agent else []
    return " ".join([*words, *whom]) + "?"


def draw_events(rng: Random, cast: list[Entity], verb: VerbConcept) -> list[Event]:
    """The event to ask for, the one that only its denial sets apart, and the one that only its tense does."""
    tense, negated = pick(rng, TENSES), chance(rng, 0.5)
    points = ((tense, negated), (tense, not negated), (other(rng, TENSES, tense), negated))
    return [Event(cast[2 * place], verb, cast[2 * place + 1], *point) for place, point in enumerate(points)]


def draft(rng: Random) -> Draft:
    cast: list[Entity] = []
    while len(cast) < 6:
        cast.append(draw_entity(rng, *cast, adjective=0.2))
    verb = pick(rng, lexicon.MUTUAL)
    key = f"{sorted(entity.concept[0].singular for entity in cast)} {verb[0].base}"

    def make() -> list[tuple[object, ...]]:
        events = draw_events(rng, cast, verb)
        of_agent = chance(rng, 0.5)
        order = rng.sample(range(len(events)), len(events))
        story = [tell(rng, events[place]) for place in order]
        asked = order.index(0)
        text, start = story[asked].agent if of_agent else story[asked].patient
        start += sum(len(told.text) + 1 for told in story[:asked])
        return [(ask(rng, events[0], of_agent), " ".join(told.text for told in story), ((text, start),))]

    return key, make


STREAM = TextStream("span_qa", ("question", "context", "answers"), draft, dtype=None)

TASK = StreamTask(
    TaskInfo(
        id="span_qa",
        title="Questions on stories",
        description="Who did it, or to whom was it done? Three events with six entities and one verb; tense, denial, "
        "voice and role together tell the span that answers.",
        kind="span_qa",
        modality="text",
        metrics=("exact_match", "qa_f1"),
        labels=None,
        outputs=2,
        train_rows=8000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
