"""Unlabelled text in two languages for pre-training, each drawn by itself.

A document is a passage of the English corpus, or one event told twice in the same language: in English with other
words, in the second language with the other order. No document holds both languages, so nothing tells which words
translate which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from peft_core.tasks._corpus import passages
from peft_core.tasks._grammar import chance
from peft_core.tasks.translation import Telling, draw_telling, english, translated


def _turned(rng: Random, telling: Telling) -> Telling:
    """The same in either voice."""
    return telling if telling.inner else replace(telling, passive=chance(rng, 0.5))


def english_documents(seed: int) -> Iterator[str]:
    """Endless English: passages of `_corpus` and retold events of the domain of translation, in turn."""
    rng, general = Random(f"bilingual:english:{seed}"), passages(seed, "bilingual")
    while True:
        yield " ".join(part for part in next(general) if part)
        telling = draw_telling(rng)
        yield f"{english(rng, telling)} {english(rng, _turned(rng, telling))}"


def second_documents(seed: int) -> Iterator[str]:
    """Endless text in the second language: single sentences and retold events, in turn."""
    rng = Random(f"bilingual:second:{seed}")
    while True:
        yield translated(draw_telling(rng))
        telling = draw_telling(rng)
        yield f"{translated(telling)} {translated(_turned(rng, telling))}"
