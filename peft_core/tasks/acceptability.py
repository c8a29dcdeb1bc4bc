"""Is the sentence grammatical? Minimal pairs: a sentence, and the same sentence with one error in it.

The errors: a verb that agrees with a nearer noun instead of its subject (across relative clauses, phrases and
coordination), a determiner or a reflexive of the wrong number, a wrong form after an auxiliary, two words exchanged.
Both sentences of a pair belong to one split.
"""

from __future__ import annotations

from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import (
    TENSES,
    Entity,
    Event,
    Tense,
    Word,
    Words,
    be_words,
    chance,
    draw_entity,
    draw_place,
    finish,
    noun_words,
    pick,
    place_words,
    relative_words,
    sentence,
    verb_words,
)
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

AGREEING: tuple[Tense, ...] = ("present", "present", "progressive", "perfect")


def determined(rng: Random, entity: Entity) -> Words:
    """A noun phrase whose determiner may show its number."""
    words = noun_words(rng, entity)
    if chance(rng, 0.6):
        return words
    right, wrong = ("these", "this") if entity.plural else ("this", "these")
    if chance(rng, 0.3):
        right, wrong = ("many", "every") if entity.plural else ("every", "many")
    return [Word(right, wrong, "determiner"), *words[1:]]


def subject_words(rng: Random, subject: Entity) -> tuple[Words, bool]:
    """A subject, often with another noun between it and its verb, and whether its verb is plural."""
    shape = rng.random()
    if shape < 0.20:
        return determined(rng, subject), subject.plural
    second = draw_entity(rng, subject, adjective=0.15)
    if shape < 0.40:
        return [*determined(rng, subject), Word("near"), *noun_words(rng, second)], subject.plural
    if shape < 0.50:
        many = chance(rng, 0.5)
        group = Entity(subject.concept, True, subject.adjective)
        return [Word("many" if many else "one"), Word("of"), *noun_words(rng, group)], many
    if shape < 0.58:
        return [*noun_words(rng, subject), Word("and"), *noun_words(rng, second)], True
    roles = (subject, second) if chance(rng, 0.5) else (second, subject)
    inner = Event(roles[0], pick(rng, lexicon.MUTUAL), roles[1], pick(rng, ("past", *AGREEING)), chance(rng, 0.2))
    return determined(rng, subject) + relative_words(rng, subject, inner), subject.plural


def object_words(rng: Random, subject: Entity, plural: bool) -> Words:
    if subject.concept in lexicon.PEOPLE and chance(rng, 0.15):
        own = pick(rng, ("himself", "herself"))
        return [Word("themselves", own, "number") if plural else Word(own, "themselves", "number")]
    return determined(rng, draw_entity(rng, subject, adjective=0.2))


def predicate_words(rng: Random, subject: Entity, plural: bool) -> Words:
    tense = pick(rng, AGREEING) if chance(rng, 0.75) else pick(rng, TENSES)
    negated = chance(rng, 0.25)
    shape = rng.random()
    if shape < 0.3:
        words = [*be_words("past" if chance(rng, 0.4) else "present", plural, negated)]
        return [*words, Word(pick(rng, pick(rng, lexicon.ADJECTIVES)))]
    if shape < 0.5:
        return verb_words(rng, pick(rng, lexicon.SOLITARY), tense, plural, negated)
    verb = pick(rng, lexicon.MUTUAL)
    if shape < 0.7:
        agent = draw_entity(rng, subject, adjective=0.2)
        return [*verb_words(rng, verb, tense, plural, negated, passive=True), Word("by"), *determined(rng, agent)]
    return verb_words(rng, verb, tense, plural, negated) + object_words(rng, subject, plural)


def clause(rng: Random) -> Words:
    """A whole sentence with its possible errors."""
    entity = draw_entity(rng, adjective=0.3)
    subject, plural = subject_words(rng, entity)
    words = subject + predicate_words(rng, entity, plural)
    if chance(rng, 0.25):
        where = place_words(rng, draw_place(rng))
        words = [*where, Word(","), *words] if chance(rng, 0.4) else words + where
    return words


def spoil(rng: Random, words: Words) -> str:
    """The sentence with one error."""
    places = [place for place, word in enumerate(words) if word.wrong not in (None, word.right)]
    numbers = [place for place in places if words[place].error == "number"]
    texts = [word.right for word in words]
    if numbers and chance(rng, 0.7):
        place = numbers[-1] if chance(rng, 0.6) else pick(rng, tuple(numbers))
    elif places and chance(rng, 0.7):
        place = pick(rng, tuple(places))
    else:
        movable = [place for place in range(len(texts) - 1) if "," not in texts[place : place + 2]]
        place = pick(rng, tuple(movable))
        texts[place], texts[place + 1] = texts[place + 1], texts[place]
        return finish(texts)
    texts[place] = words[place].wrong or texts[place]
    return finish(texts)


def draft(rng: Random) -> Draft:
    words = clause(rng)
    right = sentence(words)
    wrong = spoil(rng, words)
    pair = [(right, 1), (wrong, 0)] if chance(rng, 0.5) else [(wrong, 0), (right, 1)]
    # Spoiling either reflexive may give one and the same sentence.
    return right.replace("herself", "himself"), lambda: pair


STREAM = TextStream("acceptability", ("text",), draft)

TASK = StreamTask(
    TaskInfo(
        id="acceptability",
        title="Acceptability",
        description="Is the sentence grammatical? Minimal pairs with one error: agreement across relative clauses, "
        "reflexives, determiners, verb forms, word order.",
        kind="classification",
        modality="text",
        metrics=("matthews_correlation", "accuracy"),
        labels=("unacceptable", "acceptable"),
        outputs=2,
        train_rows=4000,
        eval_rows=1000,
        max_train_rows=MAX_ROWS,
        max_eval_rows=MAX_EVAL_ROWS,
    ),
    STREAM,
)
