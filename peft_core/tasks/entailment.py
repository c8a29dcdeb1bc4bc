"""Does the first sentence imply the second, contradict it, or neither?

Three families: events (voice, synonyms, roles, dropped or added detail, negation, which turns the direction of detail
round), claims about how many of a group do something (what follows from all, none, some, not all, each in several
wordings) and relative clauses (which of the entities did what). Negation and every quantifier occur on both sides of
all three classes.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._claims import Claim, some_adjective, two_wordings
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import (
    TENSES,
    Event,
    chance,
    draw_entity,
    draw_event,
    draw_place,
    event_key,
    event_words,
    noun_words,
    pick,
    relative_words,
    sentence,
    verb_words,
)
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

ENTAILS, NEUTRAL, CONTRADICTS = 0, 1, 2
CLAIMS: dict[int, tuple[tuple[Claim, Claim], ...]] = {
    # premise and hypothesis about the same group
    ENTAILS: (
        ("all", "all"),
        ("all", "some"),
        ("none", "none"),
        ("none", "not all"),
        ("some", "some"),
        ("not all", "not all"),
    ),
    NEUTRAL: (("some", "all"), ("not all", "none"), ("some", "not all"), ("not all", "some")),
    CONTRADICTS: (
        ("all", "none"),
        ("all", "not all"),
        ("none", "some"),
        ("none", "all"),
        ("some", "none"),
        ("not all", "all"),
    ),
}

Pair = tuple[str, str]


def told(rng: Random, event: Event) -> str:
    return sentence(event_words(rng, event, passive=chance(rng, 0.5), place_first=chance(rng, 0.3)))


def bare(event: Event) -> Event:
    """The event without its place and properties."""
    agent, patient = (replace(entity, adjective=None) for entity in (event.agent, event.patient))
    return replace(event, agent=agent, patient=patient, place=None)


def event_pair(rng: Random, label: int) -> tuple[str, Pair]:
    rich = draw_event(rng, adjective=0.4)
    negated = chance(rng, 0.5)
    rich = replace(rich, negated=negated, place=rich.place or draw_place(rng))
    poor = bare(rich)
    if label == ENTAILS:
        # Less detail follows from an assertion, more detail from a denial.
        first, second = (rich, rich) if chance(rng, 0.4) else (poor, rich) if negated else (rich, poor)
    elif label == CONTRADICTS:
        denial = replace(rich, negated=not negated)
        poorer = replace(poor, negated=not negated)
        # A rich assertion contradicts a poor denial; the reverse is no contradiction.
        first, second = (rich, denial) if chance(rng, 0.4) else (poor, denial) if negated else (rich, poorer)
    elif chance(rng, 0.6):
        mirrored = replace(rich.swapped(), negated=chance(rng, 0.5))
        first, second = (rich, mirrored) if chance(rng, 0.5) else (rich, bare(mirrored))
    else:
        first, second = (rich, poor) if negated else (poor, rich)
        if chance(rng, 0.4):
            second = replace(second, negated=not negated)
    return event_key(rich), (told(rng, first), told(rng, second))


def claim_pair(rng: Random, label: int) -> tuple[str, Pair]:
    """Claims about how many of a group do something, each in one of several wordings."""
    group, deed = (pick(rng, pick(rng, lexicon.ANIMATE)),), (pick(rng, pick(rng, lexicon.SOLITARY)),)
    adjective, tense = some_adjective(rng, lexicon.ADJECTIVES, 0.3), pick(rng, TENSES[:3])
    first, second = pick(rng, CLAIMS[label])
    key = f"{group[0].singular} {deed[0].base} {tense} {adjective}"
    return key, two_wordings(rng, first, second, group, deed, tense, adjective)


def relative_pair(rng: Random, label: int) -> tuple[str, Pair]:
    """``The dog that chased the cat saw the bird``: the inner or the outer event, its mirror image or its denial."""
    head = draw_entity(rng, adjective=0)
    inner_other = draw_entity(rng, head, adjective=0)
    outer_other = draw_entity(rng, head, inner_other, adjective=0)
    roles = (head, inner_other) if chance(rng, 0.5) else (inner_other, head)
    inner_negated, outer_negated = chance(rng, 0.3), chance(rng, 0.3)
    inner = Event(roles[0], pick(rng, lexicon.MUTUAL), roles[1], "past", inner_negated)
    outer = Event(head, pick(rng, lexicon.MUTUAL), outer_other, pick(rng, TENSES), outer_negated)
    words = noun_words(rng, head) + relative_words(rng, head, inner)
    words += verb_words(rng, outer.verb, outer.tense, head.plural, outer.negated) + noun_words(rng, outer_other)
    claim = inner if chance(rng, 0.5) else outer
    if label == CONTRADICTS:
        claim = replace(claim, negated=not claim.negated)
    elif label == NEUTRAL:
        stranger = inner_other if claim is outer else outer_other
        claim = claim.swapped() if chance(rng, 0.5) else replace(claim, agent=stranger, patient=claim.patient)
        claim = replace(claim, negated=chance(rng, 0.3))
    return event_key(inner, event_key(outer)), (sentence(words), told(rng, claim))


FAMILIES = (event_pair, event_pair, claim_pair, relative_pair)


def draft(rng: Random) -> Draft:
    label = int(rng.random() * 3)
    key, pair = pick(rng, FAMILIES)(rng, label)
    return key, lambda: [(*pair, label)]


STREAM = TextStream("entailment", ("text", "text2"), draft)

TASK = StreamTask(
    TaskInfo(
        id="entailment",
        title="Entailment",
        description="Does the first sentence imply the second, contradict it, or neither? Voice, roles, detail, "
        "negation, quantifiers, relative clauses.",
        kind="pair_classification",
        modality="text",
        metrics=("accuracy",),
        labels=("entails", "neutral", "contradicts"),
        outputs=3,
        train_rows=8000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
