"""A small second language: its words, and how it tells the events of `_grammar`.

A clause is ``polarity place subject object verb auxiliary``: ``Sa`` or, denied, ``Nu`` in front; postpositions; the
verb bare, with tense and agreement with the subject (people or animals, one or many) on the auxiliary. What the English
passive puts first comes first here too, so the accusative alone tells who does it. Adjectives follow their noun and
agree with its class and number; there are no articles. A relative clause stands before its noun.
"""

from __future__ import annotations

from functools import cache
from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._grammar import Entity, Event, Tense, pick
from peft_core.tasks._lexicon import AdjectiveConcept, NounConcept, VerbConcept

PEOPLE, ANIMALS, THINGS = lexicon.PEOPLE[:12], lexicon.ANIMALS[:8], lexicon.THINGS[:8]
PLACES = lexicon.PLACES[:8]
MUTUAL, HANDLING = lexicon.MUTUAL[:12], lexicon.HANDLING[:6]
ADJECTIVES, THING_ADJECTIVES = lexicon.ADJECTIVES[:10], lexicon.THING_ADJECTIVES[:6]
ANIMATE = PEOPLE + ANIMALS
"""The part of the English lexicon that the second language has words for."""

ONSETS, VOWELS = tuple("bdfghklmnprstvz"), tuple("aeiou")
PLURALS = {"person": "ri", "animal": "mo", "thing": "ke"}
ACCUSATIVE = "n"
AGREEMENT = {"person": "a", "animal": "o", "thing": "e"}
POSTPOSITIONS = {"near": "lim", "behind": "dur", "in": "nas", "by": "pel"}
TENSES: dict[Tense, str] = {"past": "kar", "present": "tir", "future": "for", "progressive": "mir", "perfect": "ser"}
AUXILIARY = {("person", False): "a", ("person", True): "amu", ("animal", False): "o", ("animal", True): "omu"}
RELATIVE = "el"
AFFIRMED, DENIED = "Sa", "Nu"


@cache
def roots() -> dict[str, str]:
    """The second language's root for the first word of each concept: two syllables and sometimes a third."""
    rng = Random("second language")
    concepts = [group[0].singular for group in (*ANIMATE, *THINGS, *PLACES)]
    concepts += [f"to {verb[0].base}" for verb in (*MUTUAL, *HANDLING)]
    concepts += [adjective[0] for adjective in (*ADJECTIVES, *THING_ADJECTIVES)]
    found: dict[str, str] = {}
    taken: set[str] = set()
    for concept in dict.fromkeys(concepts):
        root = ""
        while not root or root in taken:
            count = 2 + (rng.random() < 0.4)
            root = "".join(pick(rng, ONSETS) + pick(rng, VOWELS) for _ in range(count))
        taken.add(root)
        found[concept] = root
    return found


def noun_class(concept: NounConcept) -> str:
    return "person" if concept in PEOPLE else "animal" if concept in ANIMALS else "thing"


def noun_phrase(entity: Entity, accusative: bool = False) -> list[str]:
    """The noun with number and case, and its adjective, which agrees in class and number."""
    kind = noun_class(entity.concept)
    noun = roots()[entity.concept[0].singular]
    words = [noun + (PLURALS[kind] if entity.plural else "") + (ACCUSATIVE if accusative else "")]
    return [*words, adjective(entity.adjective, kind, entity.plural)] if entity.adjective else words


def adjective(concept: AdjectiveConcept, kind: str, plural: bool) -> str:
    return roots()[concept[0]] + "l" + AGREEMENT[kind] + ("s" if plural else "")


def verb_root(concept: VerbConcept) -> str:
    return roots()[f"to {concept[0].base}"]


def auxiliary(tense: Tense, subject: Entity) -> str:
    """Tense and the subject's class and number."""
    return TENSES[tense] + AUXILIARY[noun_class(subject.concept), subject.plural]


def relative_clause(head: Entity, event: Event) -> list[str]:
    """What stands before the head: the event without it, ended by the tense in its relative form."""
    other = noun_phrase(event.patient, accusative=True) if head == event.agent else noun_phrase(event.agent)
    return [*other, verb_root(event.verb), TENSES[event.tense] + RELATIVE]


def clause(event: Event, object_first: bool = False, inner: Event | None = None) -> str:
    """A sentence that tells the event; `inner` is told of its agent in a relative clause."""
    words = [DENIED if event.negated else AFFIRMED]
    if event.place:
        words += [roots()[event.place[1][0].singular], POSTPOSITIONS[event.place[0]]]
    subject = noun_phrase(event.agent)
    if inner is not None:
        subject = relative_clause(event.agent, inner) + subject
    patient = noun_phrase(event.patient, accusative=True)
    words += patient + subject if object_first else subject + patient
    return " ".join([*words, verb_root(event.verb), auxiliary(event.tense, event.agent)]) + "."
