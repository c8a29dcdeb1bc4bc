"""Claims about how many of a group do something, each in several wordings that look alike when they mean the opposite.

``All dogs sleep``, ``every dog sleeps`` and ``no dog does not sleep`` are one claim; ``not all dogs sleep`` and ``some
dogs do not sleep`` are another. Which it is depends on the determiner and the denial together, on neither alone.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from peft_core.tasks._grammar import Entity, Tense, chance, noun_words, pick, plain, sentence, verb_words
from peft_core.tasks._lexicon import AdjectiveConcept, NounConcept, VerbConcept

Claim = Literal["all", "none", "not all", "some"]
CLAIMS: tuple[Claim, ...] = ("all", "none", "not all", "some")
WORDINGS: dict[Claim, tuple[tuple[str, bool, bool], ...]] = {
    "all": (("all", True, False), ("every", False, False), ("no", True, True), ("no", False, True)),
    "none": (("no", True, False), ("no", False, False), ("all", True, True), ("every", False, True)),
    "not all": (("not all", True, False), ("not every", False, False), ("some", True, True), ("one", False, True)),
    "some": (("some", True, False), ("one", False, False), ("not all", True, True), ("not every", False, True)),
}
"""Determiner, plural, denied. ``All dogs do not sleep`` is read as ``no dog sleeps``."""


def worded(
    rng: Random,
    claim: Claim,
    group: NounConcept,
    deed: VerbConcept,
    tense: Tense,
    adjective: AdjectiveConcept | None = None,
) -> str:
    """The claim in one of its wordings; ``one`` is ``at least one``."""
    determiner, plural, denied = pick(rng, WORDINGS[claim])
    words = plain("at least one" if determiner == "one" else determiner)
    words += noun_words(rng, Entity(group, plural, adjective))[1:]
    return sentence(words + verb_words(rng, deed, tense, plural, denied))


def two_wordings(rng: Random, first: Claim, second: Claim, *what: object) -> tuple[str, str]:
    """Two claims about the same group and deed, in sentences that are not the same."""
    one = two = worded(rng, first, *what)  # type: ignore[arg-type]
    while two == one:
        two = worded(rng, second, *what)  # type: ignore[arg-type]
    return one, two


def some_adjective(
    rng: Random, adjectives: tuple[AdjectiveConcept, ...], probability: float
) -> AdjectiveConcept | None:
    return pick(rng, adjectives) if chance(rng, probability) else None
