"""The words of the embedded text tasks: concepts, each with one or two synonyms, and how they inflect.

A concept is a tuple of interchangeable words. Sentences are drawn over concepts and then worded, so that two
sentences can say the same in different words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str


@dataclass(frozen=True)
class Verb:
    base: str
    third: str
    past: str
    participle: str
    gerund: str


NounConcept = tuple[Noun, ...]
VerbConcept = tuple[Verb, ...]
AdjectiveConcept = tuple[str, ...]

_IRREGULAR_PLURALS = {
    "child": "children", "thief": "thieves", "wolf": "wolves", "mouse": "mice", "sheep": "sheep",
    "goose": "geese", "watchman": "watchmen", "craftsman": "craftsmen", "loaf": "loaves", "knife": "knives",
}  # fmt: skip


def plural_of(noun: str) -> str:
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _verb(entry: str) -> Verb:
    """A verb from ``base`` or ``base/past`` or ``base/past/participle``; a ``+`` doubles the last consonant."""
    base, *parts = entry.split("/")
    doubled = base.endswith("+")
    base = base.rstrip("+")
    stem = base + base[-1] if doubled else base
    if base.endswith(("s", "x", "ch", "sh", "o")):
        third = base + "es"
    elif base.endswith("y") and base[-2] not in "aeiou":
        third = base[:-1] + "ies"
    else:
        third = base + "s"
    if parts:
        past, participle = parts[0], parts[-1]
    elif base.endswith("e"):
        past = participle = base + "d"
    elif base.endswith("y") and base[-2] not in "aeiou":
        past = participle = base[:-1] + "ied"
    else:
        past = participle = stem + "ed"
    gerund = base[:-1] + "ing" if base.endswith("e") and not base.endswith("ee") else stem + "ing"
    return Verb(base, third, past, participle, gerund)


def _nouns(text: str) -> tuple[NounConcept, ...]:
    return tuple(tuple(Noun(word, plural_of(word)) for word in group.split("=")) for group in text.split())


def _verbs(text: str) -> tuple[VerbConcept, ...]:
    return tuple(tuple(_verb(word) for word in group.split("=")) for group in text.split())


def _adjectives(text: str) -> tuple[AdjectiveConcept, ...]:
    return tuple(tuple(group.split("=")) for group in text.split())


PEOPLE = _nouns(
    "doctor=physician teacher=instructor lawyer=attorney child=kid worker=laborer sailor=mariner thief=robber "
    "singer=vocalist author=writer student=pupil soldier=trooper guard=watchman cook=chef driver=motorist "
    "guest=visitor banker=financier scientist=researcher merchant=trader detective=investigator customer=client "
    "chief=leader clown=jester friend=pal coach=trainer nurse pilot judge neighbor farmer baker hunter dancer "
    "waiter poet painter engineer"
)
ANIMALS = _nouns(
    "dog=hound cat=kitty horse=stallion rabbit=bunny snake=serpent pig=hog wolf bear fox monkey goat duck mouse "
    "cow donkey tiger"
)
THINGS = _nouns(
    "car=automobile ship=vessel stone=rock bag=sack cup=mug picture=image gift=present jacket=coat book=volume "
    "couch=sofa rug=carpet ticket letter box table chair lamp ladder basket bottle"
)
PLACES = _nouns(
    "shop=store forest=wood street=road house=home garden park station bridge river tower school market church "
    "harbor castle field kitchen office"
)
ANIMATE = PEOPLE + ANIMALS

# A verb between two living beings; either could be its subject.
MUTUAL = _verbs(
    "chase=pursue help=assist push=shove greet=welcome scare=frighten rescue=save hate=detest love=adore "
    "mock=ridicule trick=deceive follow=trail watch=observe attack=assault calm=soothe annoy=bother "
    "warn=alert meet/met=encounter choose/chose/chosen=select defend=protect hug+=embrace catch/caught=capture "
    "lead/led=guide admire=respect ignore=neglect bite/bit/bitten kick visit touch see/saw/seen hear/heard "
    "need trust blame punish"
)
# What someone does with a thing.
HANDLING = _verbs(
    "buy/bought=purchase repair=fix find/found=discover build/built=construct hide/hid/hidden=conceal "
    "throw/threw/thrown=toss move=shift lift=raise break/broke/broken=smash want=desire clean paint carry sell/sold "
    "steal/stole/stolen drop+ hold/held bring/brought"
)
SOLITARY = _verbs(
    "shout=yell cry=weep smile=grin+ leave/left=depart stumble=trip+ rest=relax jump=leap sleep/slept laugh "
    "run+/ran/run wait arrive sing/sang/sung dance work listen complain speak/spoke/spoken"
)
ADJECTIVES = _adjectives(
    "old=elderly happy=glad sad=unhappy angry=furious quiet=silent brave=courageous clever=smart rich=wealthy "
    "tired=weary big=large small=little fast=quick lazy=idle famous=renowned strong=powerful hungry=starving "
    "young tall thin proud nervous gentle"
)
THING_ADJECTIVES = _adjectives(
    "big=large small=little old=ancient costly=expensive red blue green black white heavy new"
)
MANNERS = _adjectives("quickly=rapidly quietly=silently often=frequently suddenly=abruptly gladly=happily slowly again")
PREPOSITIONS = ("near", "behind", "in", "by")
TIMES = {
    "past": ("yesterday", "last week"),
    "present": ("every day", "these days"),
    "future": ("tomorrow", "next week"),
}

GOOD = _adjectives(
    "good=great wonderful=marvelous excellent=superb delightful=charming funny=amusing clever=smart fresh=crisp "
    "exciting=thrilling friendly=kind beautiful=lovely perfect=flawless brilliant pleasant honest"
)
BAD = _adjectives(
    "bad=poor terrible=horrible awful=dreadful boring=dull silly=foolish slow=sluggish stale=rotten rude=impolite "
    "ugly=hideous clumsy=awkward weak=feeble noisy=loud dirty=filthy dishonest"
)
LIKING = _verbs("love=adore like=enjoy praise=commend admire recommend")
DISLIKING = _verbs("hate=detest dislike=loathe criticize=condemn regret+ despise")
ASPECTS = _nouns(
    "film=movie story=plot actor=performer song=tune dinner=meal soup dessert waiter room hotel garden ending joke "
    "dialogue picture speech book show trip"
)
