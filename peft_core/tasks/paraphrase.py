"""Do two sentences say the same?

Most pairs are claims about how many of a group do something: the same claim in two wordings, or two claims in wordings
that look alike. The others tell an event, active or passive, with synonyms and a moved place; in those that differ the
words are the same and the roles exchanged.
"""

from __future__ import annotations

from random import Random

from peft_core.tasks import _lexicon as lexicon
from peft_core.tasks._claims import CLAIMS, some_adjective, two_wordings
from peft_core.tasks._contract import TaskInfo
from peft_core.tasks._grammar import TENSES, Event, chance, draw_event, event_key, event_words, other, pick, sentence
from peft_core.tasks._stream import MAX_EVAL_ROWS, MAX_ROWS, Draft, StreamTask, TextStream

CLAIM_SHARE = 0.8


def claim_pair(rng: Random, same: bool) -> Draft:
    group, deed = pick(rng, lexicon.ANIMATE), pick(rng, lexicon.SOLITARY)
    group, deed = (pick(rng, tuple(group)),), (pick(rng, tuple(deed)),)
    adjective, tense = some_adjective(rng, lexicon.ADJECTIVES, 0.3), pick(rng, TENSES[:3])
    first = pick(rng, CLAIMS)
    second = first if same else other(rng, CLAIMS, first)
    key = f"{group[0].singular} {deed[0].base} {tense} {adjective}"
    return key, lambda: [(*two_wordings(rng, first, second, group, deed, tense, adjective), int(same))]


def event_pair(rng: Random, same: bool) -> Draft:
    event = draw_event(rng, adjective=0.3, negated=0.15)
    changed = event if same else event.swapped()

    def told(event: Event) -> str:
        return sentence(event_words(rng, event, passive=chance(rng, 0.5), place_first=chance(rng, 0.4)))

    def make() -> list[tuple[str, str, int]]:
        one = two = told(event)
        while two == one:
            two = told(changed)
        return [(one, two, int(same))]

    return event_key(event), make


def draft(rng: Random) -> Draft:
    family = claim_pair if chance(rng, CLAIM_SHARE) else event_pair
    return family(rng, chance(rng, 0.5))


STREAM = TextStream("paraphrase", ("text", "text2"), draft)

TASK = StreamTask(
    TaskInfo(
        id="paraphrase",
        title="Paraphrase",
        description="Do two sentences say the same? How many do it, said in several ways; who does it to whom, active "
        "and passive.",
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
