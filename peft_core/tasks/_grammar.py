"""A small English grammar: entities, events and the ways to word them.

A word is held as a `Word`: its right form and, where one exists, a wrong form of the same lexeme with the kind of the
error. Sentences are lists of words, so that a task can take the sentence as it is or with one error in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal, NamedTuple, TypeVar

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._lexicon import AdjectiveConcept, NounConcept, VerbConcept

T = TypeVar("T")
Tense = Literal["present", "past", "future", "progressive", "perfect"]
TENSES: tuple[Tense, ...] = ("present", "past", "progressive", "perfect", "future")
ErrorKind = Literal["number", "determiner", "form"]


class Word(NamedTuple):
    right: str
    wrong: str | None = None
    error: ErrorKind | None = None


Words = list[Word]


@dataclass(frozen=True)
class Entity:
    concept: NounConcept
    plural: bool
    adjective: AdjectiveConcept | None = None


@dataclass(frozen=True)
class Event:
    """Who does what to whom, when, where; `negated`: that it does not happen."""

    agent: Entity
    verb: VerbConcept
    patient: Entity
    tense: Tense
    negated: bool = False
    place: tuple[str, NounConcept] | None = None

    def swapped(self) -> Event:
        """The same event with its two roles exchanged."""
        return replace(self, agent=self.patient, patient=self.agent)


def chance(rng: Random, probability: float) -> bool:
    return rng.random() < probability


def pick(rng: Random, options: tuple[T, ...]) -> T:
    return options[int(rng.random() * len(options))]


def other(rng: Random, options: tuple[T, ...], *taken: T) -> T:
    """A random option that is none of those taken."""
    while True:
        found = pick(rng, options)
        if found not in taken:
            return found


def plain(text: str) -> Words:
    return [Word(word) for word in text.split()]


def sentence(words: Words, end: str = ".") -> str:
    """The right forms as text, with a capital and a full stop; a comma clings to the word before it."""
    return finish([word.right for word in words], end)


def finish(words: list[str], end: str = ".") -> str:
    text = " ".join(words).replace(" ,", ",")
    return text[0].upper() + text[1:] + end


# --- drawing ----------------------------------------------------------------------------------------------------


def draw_entity(rng: Random, *apart_from: Entity, adjective: float = 0.4) -> Entity:
    """A living being or a group of them, of another kind than those given."""
    concept = other(rng, lexicon.ANIMATE, *(entity.concept for entity in apart_from))
    chosen = pick(rng, lexicon.ADJECTIVES) if chance(rng, adjective) else None
    return Entity(concept, chance(rng, 0.5), chosen)


def draw_place(rng: Random) -> tuple[str, NounConcept]:
    return pick(rng, lexicon.PREPOSITIONS), pick(rng, lexicon.PLACES)


def draw_event(rng: Random, adjective: float = 0.4, negated: float = 0.0, place: float = 0.4) -> Event:
    agent = draw_entity(rng, adjective=adjective)
    patient = draw_entity(rng, agent, adjective=adjective)
    return Event(
        agent,
        pick(rng, lexicon.MUTUAL),
        patient,
        pick(rng, TENSES),
        chance(rng, negated),
        draw_place(rng) if chance(rng, place) else None,
    )


def event_key(event: Event, *more: object) -> str:
    """What a pair of sentences is about, roles left out: an event and its mirror image have one key."""
    entities = sorted(f"{e.concept[0].singular}:{e.plural}:{e.adjective}" for e in (event.agent, event.patient))
    return f"{entities} {event.verb[0].base} {more}"


# --- wording ----------------------------------------------------------------------------------------------------


def noun_words(rng: Random, entity: Entity, determiner: str = "the") -> Words:
    """``the old dogs``: any of the concept's words, in the entity's number."""
    words = [Word(determiner)]
    if entity.adjective:
        words.append(Word(pick(rng, entity.adjective)))
    noun = pick(rng, entity.concept)
    return [*words, Word(noun.plural if entity.plural else noun.singular)]


def place_words(rng: Random, place: tuple[str, NounConcept]) -> Words:
    return [Word(place[0]), Word("the"), Word(pick(rng, place[1]).singular)]


def finite(singular: str, plural: str, is_plural: bool) -> Word:
    return Word(plural, singular, "number") if is_plural else Word(singular, plural, "number")


def verb_words(
    rng: Random, concept: VerbConcept, tense: Tense, plural: bool, negated: bool = False, passive: bool = False
) -> Words:
    """The verb group that agrees with a subject: ``were not chased``, ``has helped``, ``do not see``."""
    verb = pick(rng, concept)
    nope = [Word("not")] if negated else []
    base = Word(verb.base, verb.past, "form")
    participle = Word(verb.participle, verb.base, "form")
    if passive:
        lead: dict[Tense, Words] = {
            "present": [finite("is", "are", plural), *nope],
            "past": [finite("was", "were", plural), *nope],
            "future": [Word("will"), *nope, Word("be", "been", "form")],
            "progressive": [finite("is", "are", plural), *nope, Word("being", "be", "form")],
            "perfect": [finite("has", "have", plural), *nope, Word("been", "be", "form")],
        }
        return [*lead[tense], participle]
    if tense == "future":
        return [Word("will"), *nope, base]
    if tense == "progressive":
        return [finite("is", "are", plural), *nope, Word(verb.gerund, verb.base, "form")]
    if tense == "perfect":
        return [finite("has", "have", plural), *nope, participle]
    if negated:
        return [Word("did") if tense == "past" else finite("does", "do", plural), *nope, base]
    return [Word(verb.past) if tense == "past" else finite(verb.third, verb.base, plural)]


def be_words(tense: Tense, plural: bool, negated: bool = False) -> Words:
    """The copula in present or past."""
    word = finite("was", "were", plural) if tense == "past" else finite("is", "are", plural)
    return [word, Word("not")] if negated else [word]


def event_words(rng: Random, event: Event, passive: bool = False, place_first: bool = False) -> Words:
    """A main clause that tells the event, in the active or the passive voice."""
    subject, rest = (event.patient, event.agent) if passive else (event.agent, event.patient)
    words = noun_words(rng, subject)
    words += verb_words(rng, event.verb, event.tense, subject.plural, event.negated, passive)
    words += [Word("by")] if passive else []
    words += noun_words(rng, rest)
    if event.place is None:
        return words
    where = place_words(rng, event.place)
    return [*where, Word(","), *words] if place_first else words + where


def relative_words(rng: Random, head: Entity, event: Event) -> Words:
    """A relative clause on one of the event's entities: ``that chased the cat`` or ``that the cat chased``."""
    if head == event.agent:
        verb = verb_words(rng, event.verb, event.tense, head.plural, event.negated)
        return [Word("that"), *verb, *noun_words(rng, event.patient)]
    verb = verb_words(rng, event.verb, event.tense, event.agent.plural, event.negated)
    return [Word("that"), *noun_words(rng, event.agent), *verb]
