"""The tasks whose answers are spans or written text: what their rows say, and that no single cue gives them away."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks import _record_wordings as wordings
from peft_core.tasks import _second_language as second
from peft_core.tasks import get_task
from peft_core.tasks._bilingual_corpus import english_documents, second_documents
from peft_core.tasks._grammar import Entity, Event
from peft_core.tasks.translation import Telling, english
from scripts.pretraining import decoder

DOCTOR, WOLF, DOG = lexicon.PEOPLE[0], lexicon.ANIMALS[6], lexicon.ANIMALS[0]
CHASE, OLD = lexicon.MUTUAL[0], lexicon.ADJECTIVES[0]
ROOTS = second.roots()
DOCTORS, ONE_DOG = Entity(DOCTOR, True, OLD), Entity(DOG, False)


def test_answers_stand_where_they_are_said_to() -> None:
    columns = get_task("span_qa").rows("train", 500, 0, {}).columns
    for context, answers in zip(columns["context"], columns["answers"], strict=True):
        ((text, start),) = answers
        assert context[start : start + len(text)] == text
        assert text.lower().startswith("the ") and start == max(0, context.find(text))


def test_neither_place_nor_denial_alone_tells_the_answer() -> None:
    columns = get_task("span_qa").rows("train", 1000, 0, {}).columns
    places: list[int] = []
    alike = 0
    for question, context, (answer,) in zip(columns["question"], columns["context"], columns["answers"], strict=True):
        sentences = context.split(".")
        told = context[: answer[1]].count(".")
        places.append(2 * told + (not sentences[told].strip().startswith(answer[0])))
        denied = [" not " in sentence for sentence in sentences[:3]]
        assert denied[told] == (" not " in question)
        alike += denied.count(denied[told])
    assert alike == 2 * len(places)
    assert all(0.12 < places.count(place) / len(places) < 0.22 for place in range(6))


@pytest.mark.parametrize(
    ("event", "object_first", "expected"),
    [
        (Event(DOCTORS, CHASE, ONE_DOG, "past"), False, "Sa {doctor}ri {old}las {dog}n {chase} karamu."),
        (Event(ONE_DOG, CHASE, DOCTORS, "future", True), False, "Nu {dog} {doctor}rin {old}las {chase} foro."),
        (Event(DOCTORS, CHASE, ONE_DOG, "perfect"), True, "Sa {dog}n {doctor}ri {old}las {chase} seramu."),
        (
            Event(ONE_DOG, CHASE, DOCTORS, "present", place=("near", lexicon.PLACES[0])),
            False,
            "Sa {shop} lim {dog} {doctor}rin {old}las {chase} tiro.",
        ),
    ],
)
def test_the_second_language_by_hand(event: Event, object_first: bool, expected: str) -> None:
    assert second.clause(event, object_first) == expected.format(**ROOTS, chase=ROOTS["to chase"])


def test_relative_clauses_stand_before_their_noun() -> None:
    outer = Event(ONE_DOG, CHASE, DOCTORS, "past")
    wolf = Entity(WOLF, False)
    seen = [second.clause(outer, inner=inner) for inner in (Event(ONE_DOG, CHASE, wolf, "present"),)]
    seen += [second.clause(outer, inner=Event(wolf, CHASE, ONE_DOG, "present"))]
    chase, wolf_root = ROOTS["to chase"], ROOTS["wolf"]
    assert seen[0].startswith(f"Sa {wolf_root}n {chase} tirel {ROOTS['dog']} ")
    assert seen[1].startswith(f"Sa {wolf_root} {chase} tirel {ROOTS['dog']} ")


def test_every_english_word_has_one_root_and_every_root_one_meaning() -> None:
    assert len(set(ROOTS.values())) == len(ROOTS)
    meanings: dict[str, set[str]] = {}
    for nouns in (*second.ANIMATE, *second.THINGS, *second.PLACES):
        for noun in nouns:
            for form in (noun.singular, noun.plural):
                meanings.setdefault(form, set()).add(nouns[0].singular)
    for verbs in (*second.MUTUAL, *second.HANDLING):
        for verb in verbs:
            for form in {verb.base, verb.third, verb.past, verb.participle, verb.gerund}:
                meanings.setdefault(form, set()).add(verbs[0].base)
    for adjectives in (*second.ADJECTIVES, *second.THING_ADJECTIVES):
        for adjective in adjectives:
            meanings.setdefault(adjective, set()).add(adjectives[0])
    assert all(len(found) == 1 for found in meanings.values())


def test_one_english_sentence_has_one_translation() -> None:
    columns = get_task("translation").rows("train", 4000, 0, {}).columns
    assert len(set(columns["text"])) == len(columns["text"])
    assert all(len(targets) == 1 for targets in columns["target"])
    english_words = {word.strip(".,").lower() for text in columns["text"] for word in text.split()}
    written = {word.strip(".").lower() for (target,) in columns["target"] for word in target.split()}
    assert not english_words & written


def test_synonyms_and_place_do_not_change_the_translation_but_voice_does() -> None:
    event = Event(DOCTORS, CHASE, ONE_DOG, "past", place=("near", lexicon.PLACES[0]))
    said = {english(Random(seed), Telling(event, passive=True)) for seed in range(20)}
    assert len(said) > 5 and all("by the " in text for text in said)
    assert second.clause(event) != second.clause(event, object_first=True)


@pytest.mark.parametrize("place", range(len(wordings.KINDS)))
def test_every_plan_tells_every_fact(place: int) -> None:
    draw, plans = wordings.KINDS[place]
    said = {"low": "cheap", "medium": "moderately", "high": "expensive", "no": "not welcome", "never": "not return"}
    said |= wordings.RATINGS | wordings.HOURS
    for seed in range(60):
        facts = draw(Random(seed))
        for plan in plans:
            text = plan(facts)
            for key, value in facts.items():
                word = {"yes": "welcomes children", "0": f"no {facts.get('animal')}s"}.get(
                    value, said.get(value, value)
                )
                if key == "owns" and value != "0":
                    word = f"has {wordings.article(facts['animal']) if value == '1' else wordings.COUNTS[value]}"
                assert (wordings.VEHICLES[value] if key == "by" else word) in text, (text, key, value)
            assert text[0].isupper() and text.endswith(".") and "  " not in text


def test_records_have_several_references() -> None:
    columns = get_task("data_to_text").rows("train", 500, 0, {}).columns
    assert all(len(set(targets)) == len(targets) >= 3 for targets in columns["target"])
    assert all(" : " in text and " | " in text for text in columns["text"])
    firsts = {targets[0].split()[0] for targets in columns["target"]}
    assert {"On", "From", "The", "In", "By", "You"} <= firsts


def test_names_are_of_one_kind() -> None:
    kinds = [set(wordings.names(kind)) for kind in ("inn", "person", "town")]
    assert all(len(names) == wordings.NAMES_OF_EACH for names in kinds)
    assert not kinds[0] & kinds[1] and not kinds[0] & kinds[2] and not kinds[1] & kinds[2]


def test_no_text_of_pretraining_gives_a_translation_away() -> None:
    told, second_told = (
        {word.strip(".,").lower() for document in islice(documents(0), 400) for word in document.split()}
        for documents in (english_documents, second_documents)
    )
    assert len(told) > 500 and len(second_told) > 150
    assert not told & second_told


def test_no_text_of_pretraining_tells_a_record_beside_it() -> None:
    found = list(islice(decoder.retold_records(0), 400))
    records = [document for document in found if " : " in document]
    assert 150 < len(records) < 250
    assert not [document for document in records if "." in document]
